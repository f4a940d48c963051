// Solver answers one HTTP-01 challenge (RFC 8555, 8.3), with the flags that cert-manager gives to its solver pods.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const limit = 10 * time.Second

func main() {
	port := flag.Int("listen-port", 8089, "where to listen")
	domain := flag.String("domain", "", "the name that is validated")
	token := flag.String("token", "", "of the challenge")
	key := flag.String("key", "", "the key authorization, which is the answer")
	flag.Parse()

	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	server := &http.Server{
		Addr:              fmt.Sprintf(":%d", *port),
		Handler:           answer(*domain, *token, *key),
		ReadHeaderTimeout: limit,
	}
	go func() {
		<-stopped.Done()
		ending, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		_ = server.Shutdown(ending)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// answer serves the key authorization for this host and token, and 404 for other requests.
func answer(domain, token, key string) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if !strings.EqualFold(host(request), domain) || request.URL.Path != "/.well-known/acme-challenge/"+token {
			http.NotFound(response, request)
			return
		}
		response.Header().Set("Content-Type", "text/plain")
		_, _ = fmt.Fprint(response, key)
	})
}

func host(request *http.Request) string {
	if name, _, err := net.SplitHostPort(request.Host); err == nil {
		return name
	}
	return strings.Trim(request.Host, "[]")
}
