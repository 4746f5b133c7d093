package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// file is its own certificate.
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority for one test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	a.key, der = a.sign(a.cert, a.cert, nil)
	a.file = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) sign(cert, parent *x509.Certificate, by *ecdsa.PrivateKey) (key *ecdsa.PrivateKey, der []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	if der, err = x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), by); err != nil {
		a.t.Fatal(err)
	}
	return key, der
}

// issue makes a certificate for this host and returns the files of it and its key.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	private, der := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "EC PRIVATE KEY", raw)
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// secured are the options of a server with TLS; with clients it asks them for certificates too.
func (a *authority) secured(clients bool) *server.Options {
	a.t.Helper()
	cert, key := a.issue("server")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if clients {
		config.ClientCAs = x509.NewCertPool()
		pemText, err := os.ReadFile(a.file)
		if err != nil || !config.ClientCAs.AppendCertsFromPEM(pemText) {
			a.t.Fatal(err)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return &server.Options{TLSConfig: config, TLS: true, TLSVerify: clients, TLSTimeout: 5}
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	url := "tls://" + serve(t, ca.secured(false)).Addr().String()
	together(t, "--fabric", url, "--fabric-ca", ca.file)
	refused(t, []string{"--fabric", url}, "certificate", "--fabric-ca")
	refused(t, []string{"--fabric", url, "--fabric-ca", newAuthority(t).file}, "certificate", "--fabric-ca")
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noPEM, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, []string{"--fabric", url, "--fabric-ca", noPEM}, "certificate")
}

func TestClientCertificates(t *testing.T) {
	t.Parallel() // some of it only waits
	ca := newAuthority(t)
	url := "tls://" + serve(t, ca.secured(true)).Addr().String()
	cert, key := ca.issue("client")
	together(t, "--fabric", url, "--fabric-ca", ca.file, "--fabric-cert", cert, "--fabric-key", key)
	refused(t, []string{"--fabric", url, "--fabric-ca", ca.file}, "FABRIC_CONFIG", "certificate")
	refused(t, []string{"--fabric", url, "--fabric-ca", ca.file, "--fabric-cert", cert}, "--fabric-key")
	foreign, foreignKey := newAuthority(t).issue("client")
	refused(t, []string{"--fabric", url, "--fabric-ca", ca.file, "--fabric-cert", foreign, "--fabric-key", foreignKey}, "FABRIC_CONFIG", "certificate")
	refused(t, []string{"--fabric", url, "--fabric-ca", ca.file, "--fabric-cert", cert, "--fabric-key", foreignKey}, "key")
}

func TestNKeys(t *testing.T) {
	seedFile := func() (file, public string) {
		user, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		seed, err := user.Seed()
		if err != nil {
			t.Fatal(err)
		}
		if public, err = user.PublicKey(); err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(t.TempDir(), "seed")
		if err := os.WriteFile(file, seed, 0o600); err != nil {
			t.Fatal(err)
		}
		return file, public
	}
	known, public := seedFile()
	stranger, _ := seedFile()
	url := serve(t, &server.Options{Nkeys: []*server.NkeyUser{{Nkey: public}}}).ClientURL()
	together(t, "--fabric", url, "--fabric-nkey", known)
	refused(t, []string{"--fabric", url, "--fabric-nkey", stranger}, "FABRIC_CONFIG", "--fabric-nkey")
	refused(t, []string{"--fabric", url}, "FABRIC_CONFIG")
	broken := filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(broken, []byte("SUABROKEN"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, []string{"--fabric", url, "--fabric-nkey", broken}, "FABRIC_CONFIG")
}

func TestPasswords(t *testing.T) {
	s := serve(t, &server.Options{Username: "sidecars", Password: "hunter2"})
	at := s.Addr().String()
	together(t, "--fabric", "nats://sidecars:hunter2@"+at)
	said := refused(t, []string{"--fabric", "nats://sidecars:swordfish@" + at}, "FABRIC_CONFIG", at)
	if strings.Contains(said, "swordfish") {
		t.Errorf("the error tells the password: %s", said)
	}
}

// operator is an operator with an account and a user, as `nsc` makes them.
func operator(t *testing.T) (options *server.Options, creds func(expires time.Time) string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		key, err := make()
		must(err)
		public, err := key.PublicKey()
		must(err)
		return key, public
	}
	operatorKey, operatorID := pair(nkeys.CreateOperator)
	_, systemID := pair(nkeys.CreateAccount)
	accountKey, accountID := pair(nkeys.CreateAccount)

	claims := jwt.NewOperatorClaims(operatorID)
	claims.SystemAccount = systemID
	_, err := claims.Encode(operatorKey)
	must(err)
	resolver := &server.MemAccResolver{}
	for id, disk := range map[string]int64{systemID: 0, accountID: -1} {
		account := jwt.NewAccountClaims(id)
		account.Limits.DiskStorage, account.Limits.MemoryStorage = disk, disk
		if disk != 0 {
			account.Limits.Streams, account.Limits.Consumer = -1, -1
		}
		token, err := account.Encode(operatorKey)
		must(err)
		must(resolver.Store(id, token))
	}
	creds = func(expires time.Time) string {
		userKey, userID := pair(nkeys.CreateUser)
		user := jwt.NewUserClaims(userID)
		user.Expires = expires.Unix()
		token, err := user.Encode(accountKey)
		must(err)
		seed, err := userKey.Seed()
		must(err)
		text, err := jwt.FormatUserConfig(token, seed)
		must(err)
		file := filepath.Join(t.TempDir(), "user.creds")
		must(os.WriteFile(file, text, 0o600))
		return file
	}
	return &server.Options{TrustedOperators: []*jwt.OperatorClaims{claims}, AccountResolver: resolver, SystemAccount: systemID}, creds
}

func TestCredentials(t *testing.T) {
	options, creds := operator(t)
	_, foreign := operator(t)
	ca := newAuthority(t)
	secured := ca.secured(false)
	options.TLSConfig, options.TLS, options.TLSTimeout = secured.TLSConfig, true, 5
	url := "tls://" + serve(t, options).Addr().String()
	later := time.Now().Add(time.Hour)
	together(t, "--fabric", url, "--fabric-ca", ca.file, "--fabric-creds", creds(later))
	flags := []string{"--fabric", url, "--fabric-ca", ca.file}
	stranger, expired := foreign(later), creds(time.Now().Add(-time.Hour))
	refused(t, append(flags, "--fabric-creds", stranger), "FABRIC_CONFIG", "--fabric-creds")
	refused(t, append(flags, "--fabric-creds", expired), "FABRIC_CONFIG", "--fabric-creds")
	refused(t, flags, "FABRIC_CONFIG", "--fabric-creds")
	empty := filepath.Join(t.TempDir(), "empty.creds")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, append(flags, "--fabric-creds", empty), "FABRIC_CONFIG", empty)
}

// A server that speaks no TLS, and one that speaks nothing.
func TestNoTLSOnTheServer(t *testing.T) {
	t.Parallel() // some of it only waits
	url := "tls://" + serve(t, &server.Options{}).Addr().String()
	refused(t, []string{"--fabric", url}, "FABRIC_CONFIG")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	refused(t, []string{"--fabric", "nats://" + listener.Addr().String()}, "FABRIC_DOWN", listener.Addr().String())
}
