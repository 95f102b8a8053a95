package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// warnings keeps what the API server warns of.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	texts := w.texts
	w.texts = nil
	return texts
}

// objects reaches objects of any kind, as the admin, and keeps the warnings of each call.
type objects struct {
	dynamic  dynamic.Interface
	mapper   meta.RESTMapper
	warnings *warnings
}

func (c *cluster) objects() (*objects, error) {
	o := &objects{warnings: &warnings{}}
	config := rest.CopyConfig(c.rest)
	config.WarningHandler = o.warnings
	groups, err := restmapper.GetAPIGroupResources(c.client.Discovery())
	if err != nil {
		return nil, err
	}
	o.mapper = restmapper.NewDiscoveryRESTMapper(groups)
	o.dynamic, err = dynamic.NewForConfig(config)
	return o, err
}

// at returns the place of an object; namespace is that of the release.
func (o *objects) at(object *unstructured.Unstructured, namespace string) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := o.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	resource := o.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return resource, nil
	}
	if own := object.GetNamespace(); own != "" {
		namespace = own
	}
	return resource.Namespace(namespace), nil
}

// admit asks the API server whether it would take the object, with unknown and doubled fields
// refused, and takes a warning for a no.
func (o *objects) admit(ctx context.Context, object *unstructured.Unstructured, namespace string) error {
	place, err := o.at(object, namespace)
	if err != nil {
		return err
	}
	o.warnings.take()
	_, err = place.Create(ctx, object, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return err
	}
	if texts := o.warnings.take(); len(texts) > 0 {
		return fmt.Errorf("warning: %s", strings.Join(texts, "; "))
	}
	return nil
}

// contents returns all objects of a release as they are kept, without what the server counts.
func (o *objects) contents(ctx context.Context, namespace string, r *rendered) (map[string]string, error) {
	found := map[string]string{}
	for _, object := range r.objects {
		if isHook(object) {
			continue
		}
		place, err := o.at(object, namespace)
		if err != nil {
			return nil, err
		}
		kept, err := place.Get(ctx, object.GetName(), metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		found[object.GetKind()+" "+object.GetName()] = content(kept)
	}
	return found, nil
}

// content is an object without what the server counts and what controllers report.
func content(object *unstructured.Unstructured) string {
	object = object.DeepCopy()
	for _, counted := range []string{"managedFields", "resourceVersion"} {
		unstructured.RemoveNestedField(object.Object, "metadata", counted)
	}
	delete(object.Object, "status")
	text, err := object.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// gone returns an error that names what of a release is still there.
func (o *objects) gone(ctx context.Context, namespace string, r *rendered) error {
	var left []error
	for _, object := range r.objects {
		place, err := o.at(object, namespace)
		if err != nil {
			return err
		}
		_, err = place.Get(ctx, object.GetName(), metav1.GetOptions{})
		if err == nil {
			left = append(left, fmt.Errorf("%s %s is left", object.GetKind(), object.GetName()))
		} else if !apierrors.IsNotFound(err) {
			left = append(left, err)
		}
	}
	return errors.Join(left...)
}
