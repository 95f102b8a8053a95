package main

import (
	"context"
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// disruption drains nodes as an operator would and counts what the budget lets go.
func (t *trial) disruption(ctx context.Context) {
	label := "disruption budget: "
	if !t.only.MatchString(label) {
		return
	}
	i := &installation{t: t, helm: t.helms[0], release: "budget", namespace: "budget",
		values: []string{"--set", "replicas=3", "--set", "pdb.enabled=true"}}
	if !t.always(label+"three pods in three zones, one may go", func() error {
		if err := i.prepare(ctx); err != nil {
			return err
		}
		if err := i.install(ctx); err != nil {
			return err
		}
		if err := i.zones(ctx, 3); err != nil {
			return err
		}
		return eventually(ctx, func(ctx context.Context) error { return i.allowed(ctx, 1) })
	}) {
		return
	}
	t.always(label+"a second pod is not let go before the first is replaced", func() error {
		t.nodes.hold(true)
		defer t.nodes.hold(false)
		pods, err := t.cluster.client.CoreV1().Pods(i.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if err := t.evict(ctx, &pods.Items[0]); err != nil {
			return fmt.Errorf("the first: %w", err)
		}
		if err := t.evict(ctx, &pods.Items[1]); !apierrors.IsTooManyRequests(err) {
			return fmt.Errorf("the second: want too many requests, have %v", err)
		}
		t.nodes.hold(false)
		if err := eventually(ctx, i.allReady); err != nil {
			return err
		}
		return eventually(ctx, func(ctx context.Context) error { return t.evict(ctx, &pods.Items[1]) })
	})
	t.always(label+"uninstall leaves nothing", func() error { return i.uninstall(ctx) })
}

func (t *trial) evict(ctx context.Context, pod *corev1.Pod) error {
	return t.cluster.client.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
	})
}

// allowed looks whether the budget counts the pods and lets as many go.
func (i *installation) allowed(ctx context.Context, count int32) error {
	budgets, err := i.t.cluster.client.PolicyV1().PodDisruptionBudgets(i.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(budgets.Items) != 1 {
		return fmt.Errorf("%d budgets", len(budgets.Items))
	}
	if status := budgets.Items[0].Status; status.DisruptionsAllowed != count || status.ExpectedPods == 0 {
		return fmt.Errorf("%d of %d pods may go, want %d", status.DisruptionsAllowed, status.ExpectedPods, count)
	}
	return nil
}

// zones counts the zones that the pods are in.
func (i *installation) zones(ctx context.Context, wanted int) error {
	pods, err := i.t.cluster.client.CoreV1().Pods(i.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	zones := map[string]bool{}
	for _, pod := range pods.Items {
		node, err := i.t.cluster.client.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		zones[node.Labels[corev1.LabelTopologyZone]] = true
	}
	if len(zones) != wanted {
		return fmt.Errorf("the pods are in %d zones, want %d", len(zones), wanted)
	}
	return nil
}

// autoscaling lets the autoscaler read metrics that the trial sets, and upgrades in between.
func (t *trial) autoscaling(ctx context.Context) {
	label := "autoscaler: "
	if !t.only.MatchString(label) {
		return
	}
	i := &installation{t: t, helm: t.helms[0], release: "scaled", namespace: "scaled",
		values: []string{"--set", "autoscaling.type=hpa", "--set", "autoscaling.maxReplicas=6"}}
	var metrics *podMetrics
	if !t.always(label+"it reads every metric that it names", func() error {
		var err error
		if metrics, err = serveMetrics(ctx, t.cluster); err != nil {
			return err
		}
		if err := i.prepare(ctx); err != nil {
			return err
		}
		if err := metrics.aim(i.rendered); err != nil {
			return err
		}
		// At the targets: no reason to change anything.
		metrics.load(100)
		if err := i.install(ctx); err != nil {
			return err
		}
		return eventually(ctx, func(ctx context.Context) error {
			return i.scaler(ctx, func(scaler *autoscalingv2.HorizontalPodAutoscaler) error {
				for _, kind := range []autoscalingv2.HorizontalPodAutoscalerConditionType{autoscalingv2.AbleToScale, autoscalingv2.ScalingActive} {
					if err := holds(scaler, kind); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}) {
		return
	}
	t.always(label+"ten times the load makes the most pods", func() error {
		metrics.load(1000)
		return i.untilReplicas(ctx, 6)
	})
	t.always(label+"an upgrade does not take the pods away again", func() error {
		stop := i.watchReady(ctx)
		err := i.upgradeTo(ctx, i.helm, changes...)
		fewest := stop()
		if err != nil {
			return err
		}
		if fewest < 6 {
			return fmt.Errorf("in between only %d pods were ready", fewest)
		}
		return i.untilReplicas(ctx, 6)
	})
	t.always(label+"no load makes the fewest pods", func() error {
		metrics.load(0)
		return i.untilReplicas(ctx, 2)
	})
	t.always(label+"uninstall leaves nothing", func() error { return i.uninstall(ctx) })
}

func (i *installation) untilReplicas(ctx context.Context, wanted int32) error {
	return eventually(ctx, func(ctx context.Context) error {
		deployment, err := i.deployment(ctx)
		if err != nil {
			return err
		}
		if *deployment.Spec.Replicas != wanted {
			return i.scaler(ctx, func(scaler *autoscalingv2.HorizontalPodAutoscaler) error {
				return fmt.Errorf("%d pods are wanted instead of %d; the autoscaler says %+v", *deployment.Spec.Replicas, wanted, scaler.Status)
			})
		}
		return i.allReady(ctx)
	})
}

func (i *installation) scaler(ctx context.Context, look func(*autoscalingv2.HorizontalPodAutoscaler) error) error {
	scalers, err := i.t.cluster.client.AutoscalingV2().HorizontalPodAutoscalers(i.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(scalers.Items) != 1 {
		return fmt.Errorf("%d autoscalers", len(scalers.Items))
	}
	return look(&scalers.Items[0])
}

func holds(scaler *autoscalingv2.HorizontalPodAutoscaler, kind autoscalingv2.HorizontalPodAutoscalerConditionType) error {
	for _, condition := range scaler.Status.Conditions {
		if condition.Type == kind {
			if condition.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("%s: %s", condition.Reason, condition.Message)
		}
	}
	return errors.New("the autoscaler has no condition " + string(kind))
}
