package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// listenerFD is the socket that the parent listens on: it knows the port before the server is up,
// and nobody else can take it in between.
const listenerFD = 3

func init() {
	parts["apiserver"] = func() {
		if err := serve(os.Args[1:]); err != nil {
			fail(err)
		}
	}
}

// serve runs etcd in DIR (the first argument), reached through a socket in that folder only, and
// the API server on the listener that the parent left open.
func serve(args []string) error {
	if len(args) == 0 {
		return errors.New("a folder is missing")
	}
	folder, flags := args[0], args[1:]
	ctx := genericapiserver.SetupSignalContext()

	store, err := startEtcd(folder)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer store.Close()

	listener, err := net.FileListener(os.NewFile(listenerFD, "listener"))
	if err != nil {
		return fmt.Errorf("listener: %w", err)
	}
	address := listener.Addr().(*net.TCPAddr)

	server := options.NewServerRunOptions()
	all := pflag.NewFlagSet("apiserver", pflag.ContinueOnError)
	sets := server.Flags()
	for _, set := range sets.FlagSets {
		all.AddFlagSet(set)
	}
	if err := all.Parse(flags); err != nil {
		return err
	}
	server.Etcd.StorageConfig.Transport.ServerList = []string{store.Config().ListenClientUrls[0].String()}
	server.SecureServing.Listener = listener
	server.SecureServing.BindPort = address.Port
	server.SecureServing.BindAddress = address.IP
	server.SecureServing.ExternalAddress = address.IP
	// There is no node that could reach a loopback address.
	server.EndpointReconcilerType = "none"

	if err := server.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	completed, err := server.Complete(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(completed.Validate()...); err != nil {
		return err
	}
	return app.Run(ctx, completed)
}

func startEtcd(folder string) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Dir = filepath.Join(folder, "etcd")
	config.LogLevel = "warn"
	client := url.URL{Scheme: "unix", Path: filepath.Join(folder, "etcd-client.sock")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(folder, "etcd-peer.sock")}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	// The data is thrown away with the folder.
	config.UnsafeNoFsync = true

	store, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-store.Server.ReadyNotify():
		return store, nil
	case err := <-store.Err():
		return nil, err
	case <-time.After(time.Minute):
		store.Close()
		return nil, errors.New("not ready within a minute")
	}
}
