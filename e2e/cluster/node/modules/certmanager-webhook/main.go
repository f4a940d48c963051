// The webhook of cert-manager, the real one. Its package is internal, so the path of this module is below cert-manager's.
// Options are named as there.
package main

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/cert-manager/cert-manager/internal/webhook"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/webhook/options"
)

func main() {
	config, err := options.NewWebhookConfiguration()
	if err != nil {
		log.Fatal(err)
	}
	options.AddConfigFlags(pflag.CommandLine, config)
	pflag.Parse()
	logf.InitLogs()
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	server, err := webhook.NewCertManagerWebhookServer(logf.Log.WithName("webhook"), *config)
	if err != nil {
		log.Fatal(err)
	}
	if err := server.Run(stopped); err != nil {
		log.Fatal(err)
	}
}
