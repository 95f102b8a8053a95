package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// patience is how long a condition may take; none is expected to take more than seconds.
const patience = 2 * time.Minute

// trial is what the scenarios share.
type trial struct {
	*report
	cluster *cluster
	nodes   *nodes
	node    *realNode
	helms   []*helm
	chart   string
}

// eventually waits until f returns no error, and returns the last one if that never happens.
func eventually(ctx context.Context, f func(ctx context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		// What a look says that was cut off is not the reason.
		if err := f(ctx); err == nil || ctx.Err() == nil {
			last = err
		}
		return last == nil, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("after %s: %w", patience, last)
	}
	return err
}

// namespace makes a namespace in which only pods of the restricted profile are admitted. It comes
// back when pods can be made in it.
func (t *trial) namespace(ctx context.Context, name string) error {
	_, err := t.cluster.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{
			"pod-security.kubernetes.io/enforce": "restricted",
			"pod-security.kubernetes.io/warn":    "restricted",
		},
	}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return eventually(ctx, func(ctx context.Context) error {
		_, err := t.cluster.client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// bringClaim makes a claim that is bound to a volume of its own.
func (t *trial) bringClaim(ctx context.Context, namespace, name string) error {
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
	class := ""
	volume := namespace + "-" + name
	_, err := t.cluster.client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: volume},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: modes,
			ClaimRef: &corev1.ObjectReference{Namespace: namespace, Name: name},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				NFS: &corev1.NFSVolumeSource{Server: "192.0.2.2", Path: "/models", ReadOnly: true},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = t.cluster.client.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, StorageClassName: &class, VolumeName: volume,
			Resources: corev1.VolumeResourceRequirements{Requests: size},
		},
	}, metav1.CreateOptions{})
	return err
}

func (t *trial) bringClass(ctx context.Context, kind, name string) error {
	var err error
	meta := metav1.ObjectMeta{Name: name}
	if kind == "PriorityClass" {
		_, err = t.cluster.client.SchedulingV1().PriorityClasses().Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: meta, Value: 1000}, metav1.CreateOptions{})
	} else {
		_, err = t.cluster.client.NodeV1().RuntimeClasses().Create(ctx, &nodev1.RuntimeClass{ObjectMeta: meta, Handler: name}, metav1.CreateOptions{})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// installCRDs applies every definition of the files and folders, and waits until they are served.
func (t *trial) installCRDs(ctx context.Context, paths []string) error {
	var files []string
	for _, path := range paths {
		err := filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(file, ".yaml") {
				files = append(files, file)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return errors.New("there are none")
	}
	args := []string{"apply", "--server-side", "--field-manager=trial"}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return err
		}
		args = append(args, "-f", file)
	}
	if _, err := t.cluster.kubectl(ctx, "admin", args...); err != nil {
		return err
	}
	_, err := t.cluster.kubectl(ctx, "admin", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	return err
}
