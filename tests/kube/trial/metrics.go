package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	certutil "k8s.io/client-go/util/cert"
)

const metricsAPI = "/apis/custom.metrics.k8s.io/v1beta1"

// podMetrics is a metrics adapter: every pod has the same share of each metric's target.
type podMetrics struct {
	cluster *cluster
	mu      sync.Mutex
	targets map[string]int64 // in thousandths, by the name of the metric
	percent int64
}

// aim takes the names and targets from the autoscaler that is rendered.
func (m *podMetrics) aim(r *rendered) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, object := range r.objects {
		if object.GetKind() != "HorizontalPodAutoscaler" {
			continue
		}
		scaler := &autoscalingv2.HorizontalPodAutoscaler{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, scaler); err != nil {
			return err
		}
		for _, metric := range scaler.Spec.Metrics {
			if metric.Pods != nil {
				m.targets[metric.Pods.Metric.Name] = metric.Pods.Target.AverageValue.MilliValue()
			}
		}
	}
	if len(m.targets) == 0 {
		return errors.New("the autoscaler asks for no metric of pods")
	}
	return nil
}

// load sets every metric of every pod to a percentage of its target.
func (m *podMetrics) load(percent int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.percent = percent
}

// serveMetrics serves the API of custom metrics on loopback and has the API server pass it on.
func serveMetrics(ctx context.Context, c *cluster) (*podMetrics, error) {
	m := &podMetrics{cluster: c, targets: map[string]int64{}}
	certificate, key, err := certutil.GenerateSelfSignedCertKey("localhost", nil, nil)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: m, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	port := int64(listener.Addr().(*net.TCPAddr).Port)

	_, err = c.client.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "metrics-adapter"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	services := c.dynamic.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	_, err = services.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
		"metadata": map[string]any{"name": "v1beta1.custom.metrics.k8s.io"},
		"spec": map[string]any{
			"group": "custom.metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": true,
			"groupPriorityMinimum": int64(100), "versionPriority": int64(100),
			"service": map[string]any{"namespace": "default", "name": "metrics-adapter", "port": port},
		},
	}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return m, eventually(ctx, func(ctx context.Context) error {
		_, err := c.client.Discovery().RESTClient().Get().AbsPath(metricsAPI).DoRaw(ctx)
		return err
	})
}

func (m *podMetrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := m.answer(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (m *podMetrics) answer(r *http.Request) (any, error) {
	if r.URL.Path == metricsAPI {
		return map[string]any{
			"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "custom.metrics.k8s.io/v1beta1",
			"resources": []any{map[string]any{"name": "pods/*", "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": []string{"get"}}},
		}, nil
	}
	// …/namespaces/NAMESPACE/pods/*/METRIC
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, metricsAPI+"/"), "/")
	if len(parts) != 5 || parts[0] != "namespaces" || parts[2] != "pods" {
		return nil, fmt.Errorf("nothing at %s", r.URL.Path)
	}
	m.mu.Lock()
	target, known := m.targets[parts[4]]
	milli := target * m.percent / 100
	m.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("no metric %s", parts[4])
	}
	pods, err := m.cluster.client.CoreV1().Pods(parts[1]).List(r.Context(), metav1.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector")})
	if err != nil {
		return nil, err
	}
	items := []any{}
	for _, pod := range pods.Items {
		items = append(items, map[string]any{
			"describedObject": map[string]any{"kind": "Pod", "namespace": pod.Namespace, "name": pod.Name, "apiVersion": "/v1"},
			"metricName":      parts[4], "timestamp": metav1.Now(), "value": fmt.Sprintf("%dm", milli),
		})
	}
	return map[string]any{"kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta1", "metadata": map[string]any{}, "items": items}, nil
}
