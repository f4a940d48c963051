// The controllers of cert-manager, the real ones, from its public packages. Its own program cannot be had from the module
// proxy: it is a module without tags. Options are named as there, where they are the same.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmeorders"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/acme"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/vault"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificatesigningrequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificatesigningrequests/vault"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util/feature"
)

const (
	workers = 5
	// The gate, and the beginning of the names, of the controllers that sign CertificateSigningRequests.
	signers       = "ExperimentalCertificateSigningRequestControllers"
	signersPrefix = "certificatesigningrequests-"
)

func main() {
	options, gates := parsed()
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := feature.DefaultMutableFeatureGate.Set(gates); err != nil {
		log.Fatal(err)
	}
	logf.InitLogs()
	if err := run(logf.NewContext(stopped, logf.Log.WithName("cert-manager")), options); err != nil {
		log.Fatal(err)
	}
}

func parsed() (controller.ContextOptions, string) {
	kubeconfig := flag.String("kubeconfig", "", "none: the pod's ServiceAccount")
	namespace := flag.String("cluster-resource-namespace", "cert-manager", "where Secrets of ClusterIssuers are")
	solver := flag.String("acme-http01-solver-image", "", "image of the pods that answer HTTP-01 challenges")
	http01 := flag.String("acme-http01-solver-nameservers", "", "host:port,... for the self check of HTTP-01")
	dns01 := flag.String("dns01-recursive-nameservers", "", "host:port,... for the self check of DNS-01")
	recursive := flag.Bool("dns01-recursive-nameservers-only", false, "do not look for authoritative servers")
	period := flag.Duration("dns01-check-retry-period", 10*time.Second, "between two self checks")
	least := flag.Duration("certificate-request-minimum-backoff-duration", time.Hour, "after the first failure")
	most := flag.Duration("certificate-request-maximum-backoff-duration", 32*time.Hour, "after many failures")
	challenges := flag.Int("max-concurrent-challenges", 60, "at the same time")
	owner := flag.Bool("enable-certificate-owner-ref", false, "Secrets go with their Certificates")
	gates := flag.String("feature-gates", "", "Name=true,...")
	flag.Parse()

	return controller.ContextOptions{
		Kubeconfig:         *kubeconfig,
		KubernetesAPIQPS:   100,
		KubernetesAPIBurst: 200,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: *namespace},
		ACMEOptions: controller.ACMEOptions{
			HTTP01SolverImage:                 *solver,
			HTTP01SolverResourceRequestCPU:    resource.MustParse("10m"),
			HTTP01SolverResourceRequestMemory: resource.MustParse("16Mi"),
			HTTP01SolverResourceLimitsCPU:     resource.MustParse("100m"),
			HTTP01SolverResourceLimitsMemory:  resource.MustParse("64Mi"),
			ACMEHTTP01SolverRunAsNonRoot:      true,
			HTTP01SolverNameservers:           list(*http01),
			DNS01CheckAuthoritative:           !*recursive,
			DNS01Nameservers:                  list(*dns01),
			DNS01CheckRetryPeriod:             *period,
		},
		CertificateOptions: controller.CertificateOptions{
			EnableOwnerRef:                           *owner,
			CopiedAnnotationPrefixes:                 []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
			CertificateRequestMinimumBackoffDuration: *least,
			CertificateRequestMaximumBackoffDuration: *most,
		},
		SchedulerOptions: controller.SchedulerOptions{MaxConcurrentChallenges: *challenges},
	}, *gates
}

// run builds every controller that the imports have registered, starts their informers, and runs them to the end.
func run(ctx context.Context, options controller.ContextOptions) error {
	factory, err := controller.NewContextFactory(ctx, options)
	if err != nil {
		return err
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	running, ctx := errgroup.WithContext(ctx)
	for name, construct := range controller.Known() {
		if strings.HasPrefix(name, signersPrefix) && !feature.DefaultFeatureGate.Enabled(signers) {
			continue
		}
		made, err := construct(factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		running.Go(func() error { return made.Run(workers, ctx) })
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	shared.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	return running.Wait()
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(each rune) bool { return each == ',' })
}
