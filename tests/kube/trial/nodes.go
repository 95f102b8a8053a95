package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
)

// neverReady in the tag of an image makes a pod that runs and never gets ready.
const neverReady = "never-ready"

// nodes stand in for kubelets: pods that the scheduler places on them are reported as a kubelet
// would report them, without a process behind.
type nodes struct {
	client kubernetes.Interface
	next   atomic.Uint32
	mu     sync.Mutex
	held   bool
	queue  cache.Store
}

// startNodes registers three nodes in three zones and follows the pods of all nodes until the
// context ends.
func startNodes(ctx context.Context, client kubernetes.Interface) (*nodes, error) {
	n := &nodes{client: client}
	for _, zone := range []string{"a", "b", "c"} {
		if err := n.register(ctx, "node-"+zone, zone, special{}); err != nil {
			return nil, err
		}
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	informer := factory.Core().V1().Pods().Informer()
	n.queue = informer.GetStore()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { n.look(ctx, o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { n.look(ctx, o.(*corev1.Pod)) },
	})
	if err != nil {
		return nil, err
	}
	_, err = factory.Core().V1().Services().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { n.balance(ctx, o.(*corev1.Service)) },
		UpdateFunc: func(_, o any) { n.balance(ctx, o.(*corev1.Service)) },
	})
	if err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	// A pod whose Secret or ConfigMap comes later starts then, as with a kubelet.
	go func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				n.lookAgain(ctx)
			}
		}
	}()
	return n, nil
}

// special is what sets a node apart from the others.
type special struct {
	labels    map[string]string
	taints    []corev1.Taint
	resources corev1.ResourceList
}

func (n *nodes) register(ctx context.Context, name, zone string, apart special) error {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("512Gi"),
		corev1.ResourcePods: resource.MustParse("110"), corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
	}
	maps.Copy(capacity, apart.resources)
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: zone, corev1.LabelTopologyRegion: "r",
			corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		}},
		Spec: corev1.NodeSpec{Taints: apart.taints},
	}
	maps.Copy(node.Labels, apart.labels)
	node.Status = corev1.NodeStatus{
		Capacity: capacity, Allocatable: capacity,
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		}},
	}
	status := node.Status
	current, err := n.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	// The controller manager writes to a new node at the same time.
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current.Status = status
		_, err := n.client.CoreV1().Nodes().UpdateStatus(ctx, current, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			if current, err = n.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err == nil {
				return apierrors.NewConflict(corev1.Resource("nodes"), name, errors.New("written by another"))
			}
		}
		return err
	})
}

// balance gives a load balancer its address, as a cloud would.
func (n *nodes) balance(ctx context.Context, service *corev1.Service) {
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer || len(service.Status.LoadBalancer.Ingress) > 0 {
		return
	}
	service = service.DeepCopy()
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.10"}}
	_, err := n.client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, service, metav1.UpdateOptions{})
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		fmt.Println("      load balancer:", service.Namespace, service.Name, err)
	}
}

// hold keeps new pods from getting ready until release.
func (n *nodes) hold(held bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = held
}

func (n *nodes) lookAgain(ctx context.Context) {
	for _, o := range n.queue.List() {
		if pod := o.(*corev1.Pod); pod.Status.Phase == corev1.PodPending {
			n.look(ctx, pod)
		}
	}
}

func (n *nodes) look(ctx context.Context, pod *corev1.Pod) {
	if pod.Spec.NodeName == "" {
		return
	}
	var err error
	switch {
	case pod.DeletionTimestamp != nil:
		now := int64(0)
		err = n.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID},
		})
	case pod.Status.Phase == corev1.PodPending:
		n.mu.Lock()
		held := n.held
		n.mu.Unlock()
		if held {
			return
		}
		if missing := n.missing(ctx, pod); missing != "" {
			return
		}
		pod = pod.DeepCopy()
		n.run(pod)
		_, err = n.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	}
	// A pod that changed or went in between comes round again as an event.
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		fmt.Println("      node:", pod.Namespace, pod.Name, err)
	}
}

// missing names the first thing that a pod mounts and that is not there: a kubelet would not start
// its containers either.
func (n *nodes) missing(ctx context.Context, pod *corev1.Pod) string {
	for _, need := range needs(&pod.Spec) {
		if need.optional {
			continue
		}
		var keys map[string]bool
		switch need.kind {
		case "Secret":
			secret, err := n.client.CoreV1().Secrets(pod.Namespace).Get(ctx, need.name, metav1.GetOptions{})
			if err != nil {
				return need.String()
			}
			keys = keysOf(secret.Data)
		case "ConfigMap":
			config, err := n.client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, need.name, metav1.GetOptions{})
			if err != nil {
				return need.String()
			}
			keys = keysOf(config.Data)
		default:
			continue
		}
		for _, key := range need.keys {
			if !keys[key] {
				return need.String() + " key " + key
			}
		}
	}
	return ""
}

func keysOf[V any](entries map[string]V) map[string]bool {
	keys := map[string]bool{}
	for key := range entries {
		keys[key] = true
	}
	return keys
}

// run writes the status of a pod whose containers run, or have run where they are not started again.
func (n *nodes) run(pod *corev1.Pod) {
	number := n.next.Add(1)
	now := metav1.Now()
	once := pod.Spec.RestartPolicy == corev1.RestartPolicyNever
	ready := !once
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now,
		HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}},
		PodIP: fmt.Sprintf("10.244.%d.%d", number/250, number%250+1),
	}
	status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	done := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}}
	for _, container := range pod.Spec.InitContainers {
		status.InitContainerStatuses = append(status.InitContainerStatuses, corev1.ContainerStatus{
			Name: container.Name, Image: container.Image, Ready: true, State: done,
		})
	}
	for _, container := range pod.Spec.Containers {
		if strings.Contains(container.Image, neverReady) {
			ready = false
		}
		state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
		if once {
			state = done
		}
		started := true
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: container.Name, Image: container.Image, Started: &started, Ready: ready, State: state,
		})
	}
	if once {
		status.Phase = corev1.PodSucceeded
	}
	condition := corev1.ConditionFalse
	if ready {
		condition = corev1.ConditionTrue
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		state := condition
		if kind == corev1.PodInitialized {
			state = corev1.ConditionTrue
		}
		status.Conditions = append(status.Conditions, corev1.PodCondition{
			Type: kind, Status: state, LastTransitionTime: now, ObservedGeneration: pod.Generation,
		})
	}
	status.Conditions = append(status.Conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now,
	})
	status.ObservedGeneration = pod.Generation
	pod.Status = status
}
