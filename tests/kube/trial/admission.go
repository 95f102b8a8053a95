package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// violations each take one thing from the chart's pod that the restricted profile asks for.
var violations = []struct {
	what  string
	spoil func(*corev1.PodSpec)
}{
	{"that may run as root", func(spec *corev1.PodSpec) {
		root, yes := int64(0), false
		spec.SecurityContext.RunAsUser, spec.SecurityContext.RunAsNonRoot = &root, &yes
	}},
	{"that may get more rights", func(spec *corev1.PodSpec) {
		yes := true
		spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = &yes
	}},
	{"that keeps its capabilities", func(spec *corev1.PodSpec) { spec.Containers[0].SecurityContext.Capabilities = nil }},
	{"without a filter of system calls", func(spec *corev1.PodSpec) { spec.SecurityContext.SeccompProfile = nil }},
	{"with a folder of the node", func(spec *corev1.PodSpec) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "node", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: "/"},
		}})
	}},
	{"on the network of the node", func(spec *corev1.PodSpec) { spec.HostNetwork = true }},
	{"with a sidecar that sets nothing", func(spec *corev1.PodSpec) {
		spec.Containers = append(spec.Containers, corev1.Container{Name: "sidecar", Image: "sidecar"})
	}},
}

// admission shows that admission is at work: the chart's own pod is refused as soon as one thing is
// taken from it.
func (t *trial) admission(ctx context.Context) {
	label := "admission: "
	if !t.only.MatchString(label) {
		return
	}
	i := &installation{t: t, helm: t.helms[0], release: "trial", namespace: "admission",
		values: []string{"--set", "serviceAccount.create=false", "--set", "serviceAccount.name=default"}}
	if !t.always(label+"the pod of the default values is admitted", func() error {
		if err := i.prepare(ctx); err != nil {
			return err
		}
		return i.judged(ctx)
	}) {
		return
	}
	for _, violation := range violations {
		t.always(label+"a pod "+violation.what+" is refused", func() error {
			deployment, err := i.rendered.deployment()
			if err != nil {
				return err
			}
			violation.spoil(&deployment.Spec.Template.Spec)
			template, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&deployment.Spec.Template)
			if err != nil {
				return err
			}
			pod := podOf(template["metadata"], template["spec"])
			return refused(i.objects.admit(ctx, pod, i.namespace), `violates PodSecurity "restricted`)
		})
	}
	t.always(label+"an object with a misspelt field is refused", func() error {
		deployment, err := i.rendered.deployment()
		if err != nil {
			return err
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(deployment)
		if err != nil {
			return err
		}
		if err := unstructured.SetNestedField(content, int64(1), "spec", "replica"); err != nil {
			return err
		}
		return refused(i.objects.admit(ctx, &unstructured.Unstructured{Object: content}, i.namespace), `unknown field "spec.replica"`)
	})
}

// refused turns the error that is wanted into none.
func refused(err error, reason string) error {
	switch {
	case err == nil:
		return errors.New("it was admitted")
	case !strings.Contains(err.Error(), reason):
		return fmt.Errorf("refused, but not for the reason %s: %w", reason, err)
	}
	return nil
}
