// Command cert-manager is cert-manager's controller with the issuers that need nobody outside of the cluster: self-signed and CA.
// Its own command is a module that no module proxy has, so the same controllers of the same version are started here.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/logs"
	"golang.org/x/sync/errgroup"
)

const (
	workers = 5
	metrics = ":9402"
)

func main() {
	logs.InitLogs()
	defer logs.FlushLogs()
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if err := run(stop); err != nil {
		log.Fatal(err)
	}
}

// What is not set is what the project's command sets where it is told nothing.
func options() controller.ContextOptions {
	return controller.ContextOptions{
		KubernetesAPIQPS:   20,
		KubernetesAPIBurst: 50,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: os.Getenv("POD_NAMESPACE")},
		CertificateOptions: controller.CertificateOptions{
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
	}
}

func run(stop context.Context) error {
	tasks, stop := errgroup.WithContext(stop)
	factory, err := controller.NewContextFactory(stop, options())
	if err != nil {
		return err
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	for _, construct := range controller.Known() {
		one, err := construct(factory)
		if err != nil {
			return err
		}
		tasks.Go(func() error { return one.Run(workers, stop) })
	}
	shared.SharedInformerFactory.Start(stop.Done())
	shared.KubeSharedInformerFactory.Start(stop.Done())

	// It answers, and so the pod is ready, once all that there is is known.
	shared.SharedInformerFactory.WaitForCacheSync(stop.Done())
	listener, err := net.Listen("tcp", metrics)
	if err != nil {
		return err
	}
	server := shared.Metrics.NewServer(listener)
	context.AfterFunc(stop, func() { server.Close() })
	tasks.Go(func() error {
		if err := server.Serve(listener); stop.Err() == nil {
			return err
		}
		return nil
	})
	return tasks.Wait()
}
