package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// changes are values that touch the pods, their labels and those of all objects, as an upgrade does.
var changes = []string{
	"--set", "image.tag=changed", "--set", "podAnnotations.trial=changed", "--set", "podLabels.trial=changed",
	"--set", "commonLabels.trial=changed", "--set", "server.log=debug",
}

// installation is one release of the chart in a namespace of its own.
type installation struct {
	t                  *trial
	helm               *helm
	release, namespace string
	values             []string
	rendered           *rendered
	objects            *objects
}

// lifecycle installs, upgrades, rolls back and removes the chart with the values of a file, or the
// default values without one.
func (t *trial) lifecycle(ctx context.Context, h *helm, file string) {
	name, values := "default values", []string(nil)
	short := "defaults"
	if file != "" {
		name = "ci/" + filepath.Base(file)
		short = strings.TrimSuffix(filepath.Base(file), ".yaml")
		values = []string{"--values", file}
	}
	label := fmt.Sprintf("%s, %s: ", h, name)
	if !t.only.MatchString(label) {
		return
	}
	i := &installation{t: t, helm: h, release: "trial-" + h.major, namespace: short + "-" + h.major, values: values}
	ok := t.always(label+"every object is admitted, nothing is unknown, nothing is warned of", func() error { return i.admitted(ctx) })
	if !ok || !t.always(label+"install ends when all is ready", func() error { return i.install(ctx) }) {
		return
	}
	t.always(label+"its pods pass the restricted profile", func() error { return i.judged(ctx) })
	t.always(label+"an upgrade to the same changes nothing", func() error { return i.same(ctx) })
	t.always(label+"server-side apply by another hand changes nothing", func() error { return i.anotherHand(ctx) })
	if deployment, _ := i.rendered.deployment(); deployment != nil {
		t.always(label+"helm test", func() error { return i.test(ctx) })
		t.always(label+"an upgrade with changed values replaces every pod, selectors stay", func() error { return i.upgrade(ctx) })
		t.always(label+"a rollback brings back the first pods", func() error { return i.rollback(ctx) })
	}
	t.always(label+"uninstall leaves nothing", func() error { return i.uninstall(ctx) })
}

// prepare renders the chart and makes the namespace and what the release does not bring along.
func (i *installation) prepare(ctx context.Context) error {
	var err error
	if i.objects, err = i.t.cluster.objects(); err != nil {
		return err
	}
	// For the version of this cluster, whatever the one is that Helm was built with.
	if i.rendered, err = i.helm.render(ctx, i.release, i.namespace, i.t.chart, append(slices.Clone(i.values), "--kube-version", i.t.cluster.version)...); err != nil {
		return err
	}
	if len(i.rendered.objects) == 0 {
		return errors.New("nothing is rendered")
	}
	if err := i.t.namespace(ctx, i.namespace); err != nil {
		return err
	}
	_, err = i.t.bring(ctx, i.namespace, i.rendered)
	return err
}

func (i *installation) admitted(ctx context.Context) error {
	if err := i.prepare(ctx); err != nil {
		return err
	}
	var refused []error
	for _, object := range i.rendered.objects {
		// Pods are judged when the account that they run as is there.
		if object.GetKind() == "Pod" {
			continue
		}
		if err := i.objects.admit(ctx, object, i.namespace); err != nil {
			refused = append(refused, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err))
		}
	}
	return errors.Join(refused...)
}

// judged hands the pods to admission directly: a Deployment is admitted whatever its pods are, and
// what a runtime of KServe says of its pods is not looked at before there is one.
func (i *installation) judged(ctx context.Context) error {
	var pods []*unstructured.Unstructured
	for _, object := range i.rendered.objects {
		switch object.GetKind() {
		case "Pod":
			pods = append(pods, object)
		case "Deployment":
			template, _, err := unstructured.NestedMap(object.Object, "spec", "template")
			if err != nil {
				return err
			}
			pods = append(pods, podOf(template["metadata"], template["spec"]))
		case "ServingRuntime", "ClusterServingRuntime":
			spec, _, err := unstructured.NestedMap(object.Object, "spec")
			if err != nil {
				return err
			}
			for _, own := range []string{"annotations", "labels", "supportedModelFormats", "protocolVersions", "multiModel"} {
				delete(spec, own)
			}
			pods = append(pods, podOf(map[string]any{}, spec))
		}
	}
	if len(pods) == 0 {
		return errors.New("there is no pod")
	}
	var refused []error
	for _, pod := range pods {
		if err := i.objects.admit(ctx, pod, i.namespace); err != nil {
			refused = append(refused, fmt.Errorf("pod %s: %w", pod.GetName(), err))
		}
	}
	return errors.Join(refused...)
}

func podOf(metadata, spec any) *unstructured.Unstructured {
	pod := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}}
	pod.SetName("judged")
	return pod
}

func (i *installation) install(ctx context.Context) error {
	args := append([]string{"install", i.release, i.t.chart, "--namespace", i.namespace, "--wait", "--timeout", "60s"}, i.values...)
	if _, err := i.helm.run(ctx, "admin", args...); err != nil {
		return errors.Join(err, i.events(ctx))
	}
	return eventually(ctx, i.allReady)
}

// events tells what the controllers could not do.
func (i *installation) events(ctx context.Context) error {
	list, err := i.t.cluster.client.CoreV1().Events(i.namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning"})
	if err != nil {
		return err
	}
	var texts []error
	for _, event := range list.Items {
		texts = append(texts, fmt.Errorf("%s %s: %s", event.InvolvedObject.Kind, event.InvolvedObject.Name, event.Message))
	}
	return errors.Join(texts...)
}

func (i *installation) upgradeTo(ctx context.Context, h *helm, more ...string) error {
	args := append([]string{"upgrade", i.release, i.t.chart, "--namespace", i.namespace, "--wait", "--timeout", "60s"}, i.values...)
	if _, err := h.run(ctx, "admin", append(args, more...)...); err != nil {
		return errors.Join(err, i.events(ctx))
	}
	return eventually(ctx, i.allReady)
}

// same upgrades to the values that are installed and compares every object with before.
func (i *installation) same(ctx context.Context) error {
	before, err := i.objects.contents(ctx, i.namespace, i.rendered)
	if err != nil {
		return err
	}
	if err := i.upgradeTo(ctx, i.helm); err != nil {
		return err
	}
	after, err := i.objects.contents(ctx, i.namespace, i.rendered)
	if err != nil {
		return err
	}
	var changed []error
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if before[name] != after[name] {
			changed = append(changed, fmt.Errorf("%s was\n%s\nand is\n%s", name, before[name], after[name]))
		}
	}
	return errors.Join(changed...)
}

// anotherHand asks whether another field manager may apply the same objects server-side: nothing would
// change, and nobody but Helm has a say in what the chart sets. (Helm's own say is no matter: the server
// counts its defaults within a list as a difference.)
func (i *installation) anotherHand(ctx context.Context) error {
	var refused []error
	for _, object := range i.rendered.objects {
		if isHook(object) {
			continue
		}
		if err := i.applied(ctx, object); err != nil {
			refused = append(refused, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err))
		}
	}
	return errors.Join(refused...)
}

func (i *installation) applied(ctx context.Context, object *unstructured.Unstructured) error {
	place, err := i.objects.at(object, i.namespace)
	if err != nil {
		return err
	}
	options := metav1.ApplyOptions{FieldManager: "another-hand", DryRun: []string{metav1.DryRunAll}}
	_, err = place.Apply(ctx, object.GetName(), object, options)
	var status *apierrors.StatusError
	if apierrors.IsConflict(err) && errors.As(err, &status) {
		for _, cause := range status.ErrStatus.Details.Causes {
			if !strings.Contains(cause.Message, `conflict with "helm"`) {
				return fmt.Errorf("%s: %s", cause.Field, cause.Message)
			}
		}
	} else if err != nil {
		return err
	}
	options.Force = true
	would, err := place.Apply(ctx, object.GetName(), object, options)
	if err != nil {
		return err
	}
	kept, err := place.Get(ctx, object.GetName(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	before, after := content(kept), content(would)
	if before != after {
		return fmt.Errorf("it is\n%s\nand would be\n%s", before, after)
	}
	return nil
}

func (i *installation) test(ctx context.Context) error {
	hooks := 0
	for _, object := range i.rendered.objects {
		if isHook(object) {
			hooks++
		}
	}
	if hooks == 0 {
		return nil
	}
	output, err := i.helm.run(ctx, "admin", "test", i.release, "--namespace", i.namespace, "--timeout", "60s")
	if err != nil {
		return errors.Join(err, i.events(ctx))
	}
	if !strings.Contains(output, "Succeeded") {
		return fmt.Errorf("no test ran:\n%s", output)
	}
	return nil
}

func (i *installation) deployment(ctx context.Context) (*appsv1.Deployment, error) {
	wanted, err := i.rendered.deployment()
	if err != nil {
		return nil, err
	}
	return i.t.cluster.client.AppsV1().Deployments(i.namespace).Get(ctx, wanted.Name, metav1.GetOptions{})
}

func (i *installation) upgrade(ctx context.Context) error {
	before, err := i.deployment(ctx)
	if err != nil {
		return err
	}
	services, err := i.selectors(ctx)
	if err != nil {
		return err
	}
	if err := i.upgradeTo(ctx, i.helm, changes...); err != nil {
		return err
	}
	after, err := i.deployment(ctx)
	if err != nil {
		return err
	}
	if after.UID != before.UID {
		return errors.New("the Deployment was made anew")
	}
	if !reflect.DeepEqual(before.Spec.Selector, after.Spec.Selector) {
		return fmt.Errorf("the selector went from %v to %v", before.Spec.Selector, after.Spec.Selector)
	}
	if reflect.DeepEqual(before.Spec.Template, after.Spec.Template) {
		return errors.New("the pods are the same as before")
	}
	if after.Labels["trial"] != "changed" || after.Spec.Template.Labels["trial"] != "changed" {
		return fmt.Errorf("the new labels are missing: %v, pods %v", after.Labels, after.Spec.Template.Labels)
	}
	now, err := i.selectors(ctx)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(services, now) {
		return fmt.Errorf("selectors of Services went from %v to %v", services, now)
	}
	_, err = i.t.cluster.kubectl(ctx, "admin", "rollout", "status", "deployment/"+after.Name, "--namespace", i.namespace, "--timeout=60s")
	return err
}

func (i *installation) selectors(ctx context.Context) (map[string]map[string]string, error) {
	list, err := i.t.cluster.client.CoreV1().Services(i.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	found := map[string]map[string]string{}
	for _, service := range list.Items {
		found[service.Name] = service.Spec.Selector
	}
	return found, nil
}

func (i *installation) rollback(ctx context.Context) error {
	if _, err := i.helm.run(ctx, "admin", "rollback", i.release, "1", "--namespace", i.namespace, "--wait", "--timeout", "60s"); err != nil {
		return errors.Join(err, i.events(ctx))
	}
	if err := eventually(ctx, i.allReady); err != nil {
		return err
	}
	wanted, err := i.rendered.deployment()
	if err != nil {
		return err
	}
	now, err := i.deployment(ctx)
	if err != nil {
		return err
	}
	if want, have := wanted.Spec.Template.Spec.Containers[0].Image, now.Spec.Template.Spec.Containers[0].Image; want != have {
		return fmt.Errorf("the image is %s instead of %s", have, want)
	}
	for what, labels := range map[string]map[string]string{"Deployment": now.Labels, "pods": now.Spec.Template.Labels, "annotations of pods": now.Spec.Template.Annotations} {
		if labels["trial"] != "" {
			return fmt.Errorf("the label of the upgrade is still on the %s", what)
		}
	}
	return nil
}

func (i *installation) uninstall(ctx context.Context) error {
	if _, err := i.helm.run(ctx, "admin", "uninstall", i.release, "--namespace", i.namespace, "--wait", "--timeout", "60s"); err != nil {
		return err
	}
	return eventually(ctx, func(ctx context.Context) error {
		if err := i.objects.gone(ctx, i.namespace, i.rendered); err != nil {
			return err
		}
		pods, err := i.t.cluster.client.CoreV1().Pods(i.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(pods.Items) > 0 {
			return fmt.Errorf("%d pods are left", len(pods.Items))
		}
		secrets, err := i.t.cluster.client.CoreV1().Secrets(i.namespace).List(ctx, metav1.ListOptions{LabelSelector: "owner=helm"})
		if err == nil && len(secrets.Items) > 0 {
			return errors.New("Helm's own record is left")
		}
		return err
	})
}

// allReady looks whether as many pods as wanted are ready, all of the newest kind, and every Service
// reaches each of them on every one of its ports.
func (i *installation) allReady(ctx context.Context) error {
	wanted, err := i.rendered.deployment()
	if wanted == nil {
		return err
	}
	deployment, err := i.deployment(ctx)
	if err != nil {
		return err
	}
	replicas := *deployment.Spec.Replicas
	scalers, err := i.t.cluster.client.AutoscalingV2().HorizontalPodAutoscalers(i.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, scaler := range scalers.Items {
		if fewest := *scaler.Spec.MinReplicas; replicas < fewest {
			return fmt.Errorf("%d pods are wanted, of which the autoscaler has not yet made %d", replicas, fewest)
		}
	}
	status := deployment.Status
	if status.ObservedGeneration != deployment.Generation || status.UpdatedReplicas != replicas ||
		status.ReadyReplicas != replicas || status.Replicas != replicas {
		return fmt.Errorf("%d pods are wanted; there are %d, %d up to date, %d ready", replicas, status.Replicas, status.UpdatedReplicas, status.ReadyReplicas)
	}
	services, err := i.t.cluster.client.CoreV1().Services(i.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, service := range services.Items {
		if !i.rendered.has("Service", service.Name) || len(service.Spec.Selector) == 0 {
			continue
		}
		if err := i.reaches(ctx, &service, int(replicas)); err != nil {
			return err
		}
	}
	return nil
}

func (i *installation) reaches(ctx context.Context, service *corev1.Service, pods int) error {
	slices, err := i.t.cluster.client.DiscoveryV1().EndpointSlices(i.namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + service.Name,
	})
	if err != nil {
		return err
	}
	ready := map[string]int{}
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready {
				for _, port := range slice.Ports {
					ready[*port.Name]++
				}
			}
		}
	}
	for _, port := range service.Spec.Ports {
		if ready[port.Name] != pods {
			return fmt.Errorf("Service %s reaches %d of %d pods on its port %s", service.Name, ready[port.Name], pods, port.Name)
		}
	}
	return nil
}
