package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// need is an object that a pod refers to and that somebody else must have made.
type need struct {
	kind, name string
	keys       []string
	optional   bool
}

func (n need) String() string { return fmt.Sprintf("%s %s", n.kind, n.name) }

// needs lists what the volumes and the environment of a pod refer to.
func needs(spec *corev1.PodSpec) []need {
	var found []need
	for _, volume := range spec.Volumes {
		found = append(found, volumeNeeds(&volume.VolumeSource)...)
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, container := range containers {
			found = append(found, environmentNeeds(&container)...)
		}
	}
	for _, secret := range spec.ImagePullSecrets {
		found = append(found, need{kind: "Secret", name: secret.Name, optional: true})
	}
	if spec.PriorityClassName != "" {
		found = append(found, need{kind: "PriorityClass", name: spec.PriorityClassName})
	}
	if spec.RuntimeClassName != nil {
		found = append(found, need{kind: "RuntimeClass", name: *spec.RuntimeClassName})
	}
	return found
}

func volumeNeeds(source *corev1.VolumeSource) []need {
	isOptional := func(optional *bool) bool { return optional != nil && *optional }
	itemKeys := func(items []corev1.KeyToPath) (keys []string) {
		for _, item := range items {
			keys = append(keys, item.Key)
		}
		return keys
	}
	var found []need
	if s := source.Secret; s != nil {
		found = append(found, need{"Secret", s.SecretName, itemKeys(s.Items), isOptional(s.Optional)})
	}
	if s := source.ConfigMap; s != nil {
		found = append(found, need{"ConfigMap", s.Name, itemKeys(s.Items), isOptional(s.Optional)})
	}
	if s := source.PersistentVolumeClaim; s != nil {
		found = append(found, need{kind: "PersistentVolumeClaim", name: s.ClaimName})
	}
	if source.Projected == nil {
		return found
	}
	for _, part := range source.Projected.Sources {
		if s := part.Secret; s != nil {
			found = append(found, need{"Secret", s.Name, itemKeys(s.Items), isOptional(s.Optional)})
		}
		if s := part.ConfigMap; s != nil {
			found = append(found, need{"ConfigMap", s.Name, itemKeys(s.Items), isOptional(s.Optional)})
		}
	}
	return found
}

func environmentNeeds(container *corev1.Container) []need {
	isOptional := func(optional *bool) bool { return optional != nil && *optional }
	var found []need
	for _, variable := range container.Env {
		if variable.ValueFrom == nil {
			continue
		}
		if s := variable.ValueFrom.SecretKeyRef; s != nil {
			found = append(found, need{"Secret", s.Name, []string{s.Key}, isOptional(s.Optional)})
		}
		if s := variable.ValueFrom.ConfigMapKeyRef; s != nil {
			found = append(found, need{"ConfigMap", s.Name, []string{s.Key}, isOptional(s.Optional)})
		}
	}
	for _, source := range container.EnvFrom {
		if s := source.SecretRef; s != nil {
			found = append(found, need{kind: "Secret", name: s.Name, optional: isOptional(s.Optional)})
		}
		if s := source.ConfigMapRef; s != nil {
			found = append(found, need{kind: "ConfigMap", name: s.Name, optional: isOptional(s.Optional)})
		}
	}
	return found
}
