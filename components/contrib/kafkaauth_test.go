//go:build linux

package contrib

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// guarded is a server of its own with options.
func guarded(t *testing.T, options ...kfake.Opt) string {
	t.Helper()
	cluster, err := kfake.NewCluster(append(options, kfake.NumBrokers(1), kfake.AllowAutoTopicCreation())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()[0]
}

// papers are a certificate for the loopback address and its key, in PEM.
func papers(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signed, err := x509.CreateCertificate(rand.Reader, about, about, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})),
		string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}))
}

// passes publishes a message and gets it back.
func passes(t *testing.T, settings map[string]string) {
	t.Helper()
	b, err := kafkaPubSub.Open(patiently(t), host, maps.Clone(settings))
	if err != nil {
		t.Fatal(err)
	}
	broker := b.(pubsub.Broker)
	defer broker.Close(t.Context())
	f, err := broker.Subscribe(patiently(t), "t", pubsub.Group{Name: "g", AckWait: 2 * hung})
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Publish(patiently(t), "t", []pubsub.Message{{ID: "1", Data: []byte("d")}})[0]; err != nil {
		t.Fatal(err)
	}
	d := receive(t, f, 1)[0]
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
}

// refused checks that a component does not open, and what it says.
func refused(t *testing.T, settings map[string]string, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hung/4)
	defer cancel()
	b, err := kafkaPubSub.Open(ctx, host, maps.Clone(settings))
	if err == nil {
		_ = b.Close(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v, want %q", err, words)
	}
}

func TestKafkaSignsInWithAPassword(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ mechanism, method string }{{"PLAINTEXT", "PLAIN"}, {"SHA-256", "SCRAM-SHA-256"}, {"SHA-512", "SCRAM-SHA-512"}} {
		t.Run(c.mechanism, func(t *testing.T) {
			t.Parallel()
			address := guarded(t, kfake.EnableSASL(), kfake.Superuser(c.method, "ann", "secret"))
			settings := map[string]string{
				"brokers": address, "authType": "password", "saslUsername": "ann", "saslPassword": "secret", "saslMechanism": c.mechanism, "disableTls": "true",
			}
			passes(t, settings)
			settings["authRequired"] = "true"
			delete(settings, "authType")
			passes(t, settings)
			settings["saslMechanism"], settings["consumerGroupRebalanceStrategy"] = strings.ToLower(c.mechanism), "Sticky" // as the check lets it be spelt
			settings["initialOffset"], settings["consumeOrder"], settings["compression"] = "Newest", "Partition", "GZIP"
			passes(t, settings)
			settings["saslPassword"] = "wrong"
			refused(t, settings, "pubsub.kafka: open") // the stand-in hangs up, Kafka says why
		})
	}
}

func TestKafkaEncrypts(t *testing.T) {
	t.Parallel()
	certificate, key := papers(t)
	own, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(certificate))
	address := guarded(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{own}}))
	passes(t, map[string]string{"brokers": address, "authType": "certificate", "caCert": certificate})
	refused(t, map[string]string{"brokers": address, "authType": "certificate"}, "authType certificate needs caCert")
	mutual := guarded(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}))
	passes(t, map[string]string{"brokers": mutual, "authType": "mtls", "caCert": certificate, "clientCert": certificate, "clientKey": key})
	passes(t, map[string]string{"brokers": mutual, "authType": "mtls", "skipVerify": "true", "clientCert": certificate, "clientKey": key})
	refused(t, map[string]string{"brokers": mutual, "authType": "mtls", "disableTls": "true", "clientCert": certificate, "clientKey": key}, "mtls cannot be with disableTls")
	refused(t, map[string]string{"brokers": mutual, "authType": "mtls", "clientCert": certificate, "clientKey": "x"}, "clientCert and clientKey")
}

// The stand-in has no tokens: what is shown is what a server is told.
func TestKafkaAsksForTokens(t *testing.T) {
	t.Parallel()
	certificate, key := papers(t)
	asked := make(chan map[string][]string, 10)
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form := maps.Clone(r.Form)
		if user, password, ok := r.BasicAuth(); ok {
			form["basic"] = []string{user, password}
		}
		asked <- form
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token": "the token", "token_type": "Bearer", "expires_in": 3600}`))
	}))
	defer provider.Close()
	common := map[string]string{"oidcTokenEndpoint": provider.URL, "oidcClientID": "me", "oidcScopes": "a,b", "oidcExtensions": `{"pool": "x"}`}
	token := func(more map[string]string) string {
		t.Helper()
		values := maps.Clone(common)
		maps.Copy(values, more)
		_, mechanism, err := kafkaSecurity(values, newLogs(discard, nil))
		if err != nil {
			t.Fatal(err)
		}
		var first []byte
		for range 2 { // the second connection has the token of the first
			if _, first, err = mechanism.Authenticate(t.Context(), "broker"); err != nil {
				t.Fatal(err)
			}
		}
		return mechanism.Name() + " " + string(first)
	}
	const want = "OAUTHBEARER n,,\x01auth=Bearer the token\x01pool=x\x01\x01"
	if got := token(map[string]string{"authType": "oidc", "oidcClientSecret": "hush"}); got != want {
		t.Errorf("got %q", got)
	}
	if form := <-asked; form["grant_type"][0] != "client_credentials" || form["scope"][0] != "a b" || form["basic"][0] != "me" || form["basic"][1] != "hush" {
		t.Errorf("asked with %v", form)
	}
	if got := token(map[string]string{
		"authType": "oidc_private_key_jwt", "oidcClientAssertionCert": certificate, "oidcClientAssertionKey": key, "oidcAudience": "them", "oidcResource": "r", "oidcKid": "7",
	}); got != want {
		t.Errorf("got %q", got)
	}
	form := <-asked
	parts := strings.Split(form["client_assertion"][0], ".")
	head, _ := base64.RawURLEncoding.DecodeString(parts[0])
	body, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var says struct{ Iss, Sub, Aud string }
	if err := json.Unmarshal(body, &says); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(head), `"kid":"7"`) || says.Iss != "me" || says.Sub != "me" || says.Aud != "them" || form["resource"][0] != "r" || form["client_id"][0] != "me" ||
		form["client_assertion_type"][0] != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		t.Errorf("asked with %s %s %v", head, body, form)
	}
	if len(asked) != 0 {
		t.Error("a token was asked for more than once")
	}
}

func TestKafkaSignsInAtAWS(t *testing.T) {
	t.Parallel()
	_, mechanism, err := kafkaSecurity(map[string]string{"authType": "awsiam", "region": "eu-west-1", "accessKey": "AKIA", "secretKey": "s", "sessionToken": "tok"}, newLogs(discard, nil))
	if err != nil {
		t.Fatal(err)
	}
	_, first, err := mechanism.Authenticate(t.Context(), "b-1.c.kafka.eu-west-1.amazonaws.com:9098")
	if err != nil {
		t.Fatal(err)
	}
	if mechanism.Name() != "AWS_MSK_IAM" || !strings.Contains(string(first), "AKIA") || !strings.Contains(string(first), "eu-west-1") || !strings.Contains(string(first), "tok") {
		t.Errorf("%s says %s", mechanism.Name(), first)
	}
}

func TestKafkaSettingsThatAreWrong(t *testing.T) {
	t.Parallel()
	for words, settings := range map[string]map[string]string{
		"authType is missing":           {"brokers": "127.0.0.1:1"},
		"needs saslUsername":            {"brokers": "127.0.0.1:1", "authType": "password"},
		"needs oidcClientSecret":        {"brokers": "127.0.0.1:1", "authType": "oidc", "oidcTokenEndpoint": "http://127.0.0.1:1", "oidcClientID": "x"},
		"oidcExtensions is no object":   {"brokers": "127.0.0.1:1", "authType": "oidc", "oidcTokenEndpoint": "http://127.0.0.1:1", "oidcClientID": "x", "oidcClientSecret": "y", "oidcExtensions": "[]"},
		"needs region":                  {"brokers": "127.0.0.1:1", "authType": "awsiam"},
		`version "9x" is none of Kafka`: {"brokers": "127.0.0.1:1", "authType": "none", "version": "9x"},
		"excludeHeaderMetaRegex":        {"brokers": "127.0.0.1:1", "authType": "none", "excludeHeaderMetaRegex": "("},
		"caCert holds no certificate":   {"brokers": "127.0.0.1:1", "authType": "certificate", "caCert": "x"},
		"brokerz":                       {"brokerz": "127.0.0.1:1", "authType": "none"},
		"connection refused":            {"brokers": "127.0.0.1:1", "authType": "none"},
	} {
		refused(t, settings, words)
	}
	_, err := kafkaBinding.Open(t.Context(), components.Host{Log: discard, Binding: components.Binding{Input: true}}, map[string]string{"brokers": "127.0.0.1:1", "authType": "none"})
	if fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), "topics is missing") {
		t.Errorf("a binding without topics gives %v", err)
	}
}
