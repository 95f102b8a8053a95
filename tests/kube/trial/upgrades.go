package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// brokenUpgrade rolls out an image whose pods never get ready: callers keep every pod that they had,
// and Helm goes back by itself.
func (t *trial) brokenUpgrade(ctx context.Context, h *helm) {
	label := fmt.Sprintf("%s, an upgrade that never gets ready: ", h)
	if !t.only.MatchString(label) {
		return
	}
	i := &installation{t: t, helm: h, release: "broken-" + h.major, namespace: "broken-" + h.major, values: []string{"--set", "replicas=2"}}
	if !t.always(label+"two pods are installed", func() error {
		if err := i.prepare(ctx); err != nil {
			return err
		}
		return i.install(ctx)
	}) {
		return
	}
	t.always(label+"the old pods serve all the time and come back alone", func() error {
		stop := i.watchReady(ctx)
		_, failed := h.run(ctx, "admin", append([]string{"upgrade", i.release, t.chart, "--namespace", i.namespace,
			h.undo(), "--wait", "--timeout", "15s", "--set", "image.tag=" + neverReady}, i.values...)...)
		fewest := stop()
		if failed == nil {
			return errors.New("the upgrade is said to have worked")
		}
		if fewest < 2 {
			return fmt.Errorf("in between only %d pods were ready", fewest)
		}
		if err := eventually(ctx, i.allReady); err != nil {
			return err
		}
		wanted, _ := i.rendered.deployment()
		now, err := i.deployment(ctx)
		if err != nil {
			return err
		}
		if want, have := wanted.Spec.Template.Spec.Containers[0].Image, now.Spec.Template.Spec.Containers[0].Image; want != have {
			return fmt.Errorf("the image is %s instead of %s", have, want)
		}
		return nil
	})
	t.always(label+"uninstall leaves nothing", func() error { return i.uninstall(ctx) })
}

// watchReady counts ready pods until the function that it returns is called, which tells the fewest.
func (i *installation) watchReady(ctx context.Context) func() int32 {
	ctx, cancel := context.WithCancel(ctx)
	fewest := int32(1 << 30)
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			if deployment, err := i.deployment(ctx); err == nil {
				fewest = min(fewest, deployment.Status.ReadyReplicas)
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
	return func() int32 {
		cancel()
		done.Wait()
		return fewest
	}
}

// changeOfHelm installs with the oldest Helm and upgrades with the newest: the first applies on the
// client's side, the other on the server's.
func (t *trial) changeOfHelm(ctx context.Context) {
	oldest, newest := t.helms[0], t.helms[0]
	for _, h := range t.helms {
		if h.major < oldest.major {
			oldest = h
		}
		if h.major > newest.major {
			newest = h
		}
	}
	label := fmt.Sprintf("installed by %s, upgraded by %s: ", oldest, newest)
	if oldest == newest || !t.only.MatchString(label) {
		return
	}
	i := &installation{t: t, helm: oldest, release: "changed", namespace: "changed", values: []string{"--set", "replicas=2"}}
	if !t.always(label+"install", func() error {
		if err := i.prepare(ctx); err != nil {
			return err
		}
		return i.install(ctx)
	}) {
		return
	}
	i.helm = newest
	t.always(label+"upgrade", func() error { return i.upgrade(ctx) })
	t.always(label+"rollback", func() error { return i.rollback(ctx) })
	t.always(label+"uninstall leaves nothing", func() error { return i.uninstall(ctx) })
}

// neighbours puts two releases into one namespace: neither counts the other's pods as its own.
func (t *trial) neighbours(ctx context.Context) {
	label := "two releases in one namespace: "
	if !t.only.MatchString(label) {
		return
	}
	h := t.helms[0]
	one := &installation{t: t, helm: h, release: "one", namespace: "neighbours", values: []string{"--set", "replicas=1"}}
	two := &installation{t: t, helm: h, release: "two", namespace: "neighbours", values: []string{"--set", "replicas=3"}}
	t.always(label+"each has its own pods behind its own Services", func() error {
		for _, i := range []*installation{one, two} {
			if err := i.prepare(ctx); err != nil {
				return err
			}
			if err := i.install(ctx); err != nil {
				return err
			}
		}
		return errors.Join(eventually(ctx, one.allReady), eventually(ctx, two.allReady))
	})
	t.always(label+"the end of one leaves the other alone", func() error {
		if _, err := h.run(ctx, "admin", "uninstall", one.release, "--namespace", one.namespace, "--wait", "--timeout", "60s"); err != nil {
			return err
		}
		return errors.Join(one.objects.gone(ctx, one.namespace, one.rendered), eventually(ctx, two.allReady))
	})
}

// tenant installs as a person who may do everything in one namespace and nothing outside it.
func (t *trial) tenant(ctx context.Context) {
	label := "by a person with one namespace: "
	if !t.only.MatchString(label) {
		return
	}
	h := t.helms[0]
	t.always(label+"install and uninstall need no right outside it", func() error {
		if err := t.namespace(ctx, "tenant"); err != nil {
			return err
		}
		_, err := t.cluster.client.RbacV1().RoleBindings("tenant").Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "tenant"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "tenant"}},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if _, err := h.run(ctx, "tenant", "install", "mine", t.chart, "--namespace", "tenant", "--wait", "--timeout", "60s",
			"--set", "pdb.enabled=true", "--set", "networkPolicy.enabled=true"); err != nil {
			return err
		}
		_, err = h.run(ctx, "tenant", "uninstall", "mine", "--namespace", "tenant", "--wait", "--timeout", "60s")
		return err
	})
	t.always(label+"another namespace is closed", func() error {
		_, err := h.run(ctx, "tenant", "install", "mine", t.chart, "--namespace", "default")
		return refused(err, "forbidden")
	})
}
