// Obtains a certificate with the ACME client of step-ca: github.com/smallstep/certificates/ca.
//
//	step DIRECTORY ROOTS ADDRESS NAME...
//
// It trusts the certificates in the file ROOTS, answers http-01 challenges on ADDRESS (host:port), and prints the chain.
// Its newAccount request has "contact": null, and its newOrder request has Go's zero time as notBefore and notAfter.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/acme/api"
	"github.com/smallstep/certificates/ca"
)

const (
	pause = 200 * time.Millisecond
	polls = 150
)

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: step DIRECTORY ROOTS ADDRESS NAME...")
		os.Exit(2)
	}
	chain, err := obtain(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, each := range chain {
		if err := pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: each.Raw}); err != nil {
			os.Exit(1)
		}
	}
}

func obtain(directory, roots, address string, names []string) ([]*x509.Certificate, error) {
	client, err := ca.NewACMEClient(directory, nil, ca.WithRootFile(roots))
	if err != nil {
		return nil, fmt.Errorf("new account: %w", err)
	}
	answers := &sync.Map{}
	if err := serve(address, answers); err != nil {
		return nil, err
	}
	request := api.NewOrderRequest{}
	for _, name := range names {
		request.Identifiers = append(request.Identifiers, acme.Identifier{Type: acme.DNS, Value: name})
	}
	payload, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	order, err := client.NewOrder(payload)
	if err != nil {
		return nil, fmt.Errorf("new order: %w", err)
	}
	url := order.ID // the client keeps the Location here
	for _, each := range order.AuthorizationURLs {
		if err := prove(client, each, answers); err != nil {
			return nil, err
		}
	}
	if order, err = poll(client, url, acme.StatusReady); err != nil {
		return nil, err
	}
	csr, err := requestFor(names)
	if err != nil {
		return nil, err
	}
	if err := client.FinalizeOrder(order.FinalizeURL, csr); err != nil {
		return nil, fmt.Errorf("finalize: %w", err)
	}
	if order, err = poll(client, url, acme.StatusValid); err != nil {
		return nil, err
	}
	leaf, issuers, err := client.GetCertificate(order.CertificateURL)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return append([]*x509.Certificate{leaf}, issuers...), nil
}

// serve answers http-01 challenges in the background, until the program ends.
func serve(address string, answers *sync.Map) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
			answer, found := answers.Load(request.URL.Path)
			if !found {
				http.NotFound(writer, request)
				return
			}
			_, _ = fmt.Fprint(writer, answer)
		}))
	}()
	return nil
}

func prove(client *ca.ACMEClient, url string, answers *sync.Map) error {
	authorization, err := client.GetAuthz(url)
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	for _, challenge := range authorization.Challenges {
		if challenge.Type != acme.HTTP01 {
			continue
		}
		answer, err := acme.KeyAuthorization(challenge.Token, client.Key)
		if err != nil {
			return err
		}
		answers.Store("/.well-known/acme-challenge/"+challenge.Token, answer)
		if err := client.ValidateChallenge(challenge.URL); err != nil {
			return fmt.Errorf("challenge: %w", err)
		}
		return nil
	}
	return errors.New("the authorization has no http-01 challenge")
}

func poll(client *ca.ACMEClient, url string, wanted acme.Status) (*acme.Order, error) {
	for range polls {
		order, err := client.GetOrder(url)
		if err != nil {
			return nil, fmt.Errorf("order: %w", err)
		}
		if order.Status == wanted {
			return order, nil
		}
		if order.Status == acme.StatusInvalid {
			return nil, fmt.Errorf("the order is invalid: %v", order.Error)
		}
		time.Sleep(pause)
	}
	return nil, fmt.Errorf("the order does not become %s", wanted)
}

func requestFor(names []string) (*x509.CertificateRequest, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}
