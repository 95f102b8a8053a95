package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// rendered is what the chart makes of some values.
type rendered struct {
	text    string
	objects []*unstructured.Unstructured
}

func (h *helm) render(ctx context.Context, release, namespace, chart string, args ...string) (*rendered, error) {
	text, err := h.run(ctx, "admin", append([]string{"template", release, chart, "--namespace", namespace}, args...)...)
	if err != nil {
		return nil, err
	}
	r := &rendered{text: text}
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return r, nil
		} else if err != nil {
			return nil, err
		}
		if len(object.Object) > 0 {
			r.objects = append(r.objects, object)
		}
	}
}

// isHook tells what Helm makes apart from the release, such as the pod of `helm test`.
func isHook(object *unstructured.Unstructured) bool {
	return object.GetAnnotations()["helm.sh/hook"] != ""
}

// deployment returns the only Deployment, nil if there is none.
func (r *rendered) deployment() (*appsv1.Deployment, error) {
	var found *appsv1.Deployment
	for _, object := range r.objects {
		if object.GetKind() != "Deployment" {
			continue
		}
		if found != nil {
			return nil, errors.New("more than one Deployment")
		}
		found = &appsv1.Deployment{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// pods returns the specification of every pod that is rendered, the test pod included.
func (r *rendered) pods() ([]*corev1.PodSpec, error) {
	var specs []*corev1.PodSpec
	deployment, err := r.deployment()
	if err != nil {
		return nil, err
	}
	if deployment != nil {
		specs = append(specs, &deployment.Spec.Template.Spec)
	}
	for _, object := range r.objects {
		if object.GetKind() != "Pod" {
			continue
		}
		pod := &corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, pod); err != nil {
			return nil, err
		}
		specs = append(specs, &pod.Spec)
	}
	return specs, nil
}

// has tells whether the chart makes an object itself.
func (r *rendered) has(kind, name string) bool {
	for _, object := range r.objects {
		if object.GetKind() == kind && object.GetName() == name {
			return true
		}
	}
	return false
}

// bring makes what the release needs and does not bring along: namespaces, and the Secrets,
// ConfigMaps, claims and classes that its pods name. It returns what it made.
func (t *trial) bring(ctx context.Context, namespace string, r *rendered) ([]string, error) {
	for _, object := range r.objects {
		if other := object.GetNamespace(); other != "" && other != namespace {
			if err := t.namespace(ctx, other); err != nil {
				return nil, err
			}
		}
	}
	specs, err := r.pods()
	if err != nil {
		return nil, err
	}
	var made []string
	done := map[string]bool{}
	for _, spec := range specs {
		if err := t.bringNode(ctx, namespace, spec); err != nil {
			return nil, err
		}
		for _, need := range needs(spec) {
			if r.has(need.kind, need.name) || done[need.String()] {
				continue
			}
			done[need.String()] = true
			keys := allKeys(specs, need)
			if err := t.bringOne(ctx, namespace, need.kind, need.name, keys); err != nil {
				return nil, fmt.Errorf("%s: %w", need, err)
			}
			made = append(made, need.String())
		}
	}
	return made, nil
}

func allKeys(specs []*corev1.PodSpec, wanted need) (keys []string) {
	for _, spec := range specs {
		for _, need := range needs(spec) {
			if need.kind == wanted.kind && need.name == wanted.name {
				keys = append(keys, need.keys...)
			}
		}
	}
	return keys
}

func (t *trial) bringOne(ctx context.Context, namespace, kind, name string, keys []string) error {
	content := map[string]string{}
	for _, key := range keys {
		content[key] = "x"
	}
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace}
	client := t.cluster.client
	var err error
	switch kind {
	case "Secret":
		_, err = client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: meta, StringData: content}, metav1.CreateOptions{})
	case "ConfigMap":
		_, err = client.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta, Data: content}, metav1.CreateOptions{})
	case "PersistentVolumeClaim":
		err = t.bringClaim(ctx, namespace, name)
	case "PriorityClass", "RuntimeClass":
		err = t.bringClass(ctx, kind, name)
	default:
		err = fmt.Errorf("nobody makes a %s here", kind)
	}
	return err
}

// bringNode makes a node for pods that ask for a special one: with the labels that they select, the
// taints that they tolerate and the devices that they request.
func (t *trial) bringNode(ctx context.Context, namespace string, spec *corev1.PodSpec) error {
	apart := special{labels: spec.NodeSelector, resources: corev1.ResourceList{}}
	for _, container := range spec.Containers {
		for name := range container.Resources.Limits {
			if strings.Contains(string(name), "/") {
				apart.resources[name] = resource.MustParse("8")
			}
		}
	}
	if len(apart.labels) == 0 && len(apart.resources) == 0 {
		return nil
	}
	for _, toleration := range spec.Tolerations {
		if toleration.Key == "" {
			continue
		}
		apart.taints = append(apart.taints, corev1.Taint{Key: toleration.Key, Value: toleration.Value, Effect: toleration.Effect})
	}
	err := t.nodes.register(ctx, "node-"+namespace, "c", apart)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
