package fabric_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/ports"
)

// natsServer is a server of the user's.
func natsServer(t testing.TB, o server.Options) *server.Server {
	t.Helper()
	o.Host, o.NoSigs, o.NoLog = "127.0.0.1", true, true
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	t.Cleanup(func() { stop(s) })
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

func remote(s *server.Server, app, instance string) fabric.Config {
	c := config("", app, instance)
	c.URL = "nats://" + s.Addr().String()
	return c
}

func TestRemoteServerGoneAndBack(t *testing.T) {
	port := ports.Get(t)
	s := natsServer(t, server.Options{Port: port})
	a, b := open(t, remote(s, "a", "a1")), open(t, remote(s, "b", "b1"))
	if a.Describe() != "nats://"+s.Addr().String() {
		t.Errorf("described as %q", a.Describe())
	}
	hanging := make(chan struct{}, 1)
	release := make(chan struct{})
	serve(t, b, handler{call: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		if req.Method == "slow" {
			hanging <- struct{}{}
			<-release
		}
		return &call.Response{Body: req.Body}, nil
	}})
	eventually(t, "b is known", func() bool { return len(a.Instances("b")) == 1 })
	slow := make(chan error, 1)
	go func() {
		resp, err := a.Call(within(t), b1, &call.Request{Method: "slow", Body: []byte("kept")})
		if err == nil && string(resp.Body) != "kept" {
			err = fmt.Errorf("answer %q", resp.Body)
		}
		slow <- err
	}()
	<-hanging
	st, err := a.Stream(within(t), b1, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	stop(s)
	eventually(t, "both notice", func() bool { return !a.Connected() && !b.Connected() })
	_, err = st.Recv(within(t))
	wantReason(t, err, fault.StreamBroken)
	_, err = a.Call(within(t), b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.FabricDown)
	if !fault.NotSent(err) {
		t.Error("a call that was not sent must say so")
	}
	close(release) // the answer has to wait for the fabric
	natsServer(t, server.Options{Port: port})
	eventually(t, "both are back", func() bool { return a.Connected() && b.Connected() })
	if len(a.Instances("b")) != 1 {
		t.Error("b was dropped because the server was away")
	}
	eventually(t, "calls pass", func() bool {
		_, err := a.Call(within(t), b1, &call.Request{Method: "m"})
		return err == nil
	})
	if err := <-slow; err != nil {
		t.Errorf("the call that was under way: %v", err)
	}
}

// A call that was under way when the fabric went away for good does not wait for ever, even without a deadline.
func TestRemoteServerGoneForGood(t *testing.T) {
	s := natsServer(t, server.Options{})
	a, b := open(t, remote(s, "a", "a1")), open(t, remote(s, "b", "b1"))
	hanging, release := make(chan struct{}, 1), make(chan struct{})
	serve(t, b, handler{call: func(context.Context, *call.Request) (*call.Response, error) {
		hanging <- struct{}{}
		<-release
		return nil, nil
	}})
	ended := make(chan error, 1)
	go func() {
		_, err := a.Call(context.Background(), b1, &call.Request{Method: "m"})
		ended <- err
	}()
	<-hanging
	stop(s)
	wantReason(t, <-ended, fault.InstanceLost)
	close(release)
}

func TestRemoteIsNotThere(t *testing.T) {
	c := config("", "a", "a1")
	c.URL = fmt.Sprintf("nats://user:secret@127.0.0.1:%d", ports.Get(t))
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := fabric.Open(ctx, c)
	wantReason(t, err, fault.FabricDown)
	if strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the fault says %q", err)
	}
	// A server that comes while Open waits is found.
	port := ports.Get(t)
	c.URL = fmt.Sprintf("127.0.0.1:%d", port)
	opened := make(chan *fabric.Fabric, 1)
	go func() {
		f, err := fabric.Open(within(t), c)
		if err != nil {
			t.Error(err)
		}
		opened <- f
	}()
	natsServer(t, server.Options{Port: port})
	if f := <-opened; f != nil {
		shut(t, f)
	}
}

func TestRemoteBadConfiguration(t *testing.T) {
	s := natsServer(t, server.Options{Username: "u", Password: "p"})
	for _, change := range []func(*fabric.Config){
		func(c *fabric.Config) {}, // no credentials
		func(c *fabric.Config) { c.URL = "http://u:secret@127.0.0.1:1" },
		func(c *fabric.Config) { c.URL = "nats://u:secret@:4222" },
		func(c *fabric.Config) { c.URL = "nats://u:secret@bad host" },
		func(c *fabric.Config) { c.URL = " , " },
		func(c *fabric.Config) { c.Credentials = "/does/not/exist" },
		func(c *fabric.Config) { c.NKeySeedFile = os.DevNull },
		func(c *fabric.Config) { c.CAFile = os.DevNull },
		func(c *fabric.Config) { c.CertFile, c.KeyFile = os.DevNull, os.DevNull },
	} {
		c := remote(s, "a", "a1")
		change(&c)
		_, err := fabric.Open(within(t), c)
		wantReason(t, err, fault.FabricConfig)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("a password is in %q", err)
		}
	}
	c := remote(s, "a", "a1")
	c.URL = "nats://u:p@" + s.Addr().String()
	if f := open(t, c); strings.Contains(f.Describe(), "p@") {
		t.Errorf("described as %q", f.Describe())
	}
}

func TestRemoteNKey(t *testing.T) {
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	c := remote(natsServer(t, server.Options{Nkeys: []*server.NkeyUser{{Nkey: public}}}), "a", "a1")
	c.NKeySeedFile = file
	open(t, c)
}

// With permissions by subject a sidecar cannot speak in another's name, and the call says at once that it was refused.
func TestRemotePermissions(t *testing.T) {
	s := natsServer(t, server.Options{Users: []*server.User{{Username: "a", Password: "a", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{"sc.test.call.b.*.a", "sc.test.presence.>", "_INBOX.>"}},
	}}, {Username: "b", Password: "b"}}})
	honest, forged, server := remote(s, "a", "a1"), remote(s, "forged", "a2"), remote(s, "b", "b1")
	honest.URL = "nats://a:a@" + s.Addr().String()
	forged.URL = honest.URL
	server.URL = "nats://b:b@" + s.Addr().String()
	a, f, b := open(t, honest), open(t, forged), open(t, server)
	serve(t, b, handler{})
	if _, err := a.Call(within(t), b1, &call.Request{Method: "m"}); err != nil {
		t.Errorf("in its own name: %v", err)
	}
	_, err := f.Call(within(t), b1, &call.Request{Method: "m"})
	if fault.KindOf(err) != fault.Denied {
		t.Errorf("in another's name: %v", err)
	}
}

func certificates(t testing.TB) (ca, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cert = write("cert.pem", "CERTIFICATE", der)
	return cert, cert, write("key.pem", "PRIVATE KEY", pkcs8)
}

func TestRemoteTLS(t *testing.T) {
	ca, cert, key := certificates(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	content, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(content)
	s := natsServer(t, server.Options{TLSTimeout: 5, TLSVerify: true,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}})
	c := remote(s, "a", "a1")
	c.URL = "tls://" + s.Addr().String()
	_, err = fabric.Open(within(t), c)
	wantReason(t, err, fault.FabricConfig) // the CA is unknown
	c.CAFile, c.CertFile, c.KeyFile = ca, cert, key
	f := open(t, c)
	serve(t, f, handler{})
	if _, err := f.Call(within(t), fabric.Target{App: "a", Instance: "a1"}, &call.Request{Method: "m", Body: body(2 << 20)}); err != nil {
		t.Error(err)
	}
}

// A server with a small max_payload: bodies of any size still pass.
func TestRemoteSmallPayload(t *testing.T) {
	s := natsServer(t, server.Options{MaxPayload: 8 << 10})
	a, b := open(t, remote(s, "a", "a1")), open(t, remote(s, "b", "b1"))
	serve(t, b, handler{})
	for _, size := range []int{8<<10 - 300, 8 << 10, 1 << 20} {
		if resp, err := a.Call(within(t), b1, &call.Request{Method: "m", Body: body(size)}); err != nil || len(resp.Body) != size {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// Who calls into another namespace is a member of it under a name that tells where it comes from. Permissions hold it to that
// name there; beyond it they need only let it ask who is there.
func TestRemotePermissionsInAnotherNamespace(t *testing.T) {
	s := natsServer(t, server.Options{Users: []*server.User{{Username: "a", Password: "a", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"sc.other.call.b.*.a=40test", "sc.other.presence.ask"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"sc.other.presence.>", "_INBOX.>"}},
	}}, {Username: "b", Password: "b"}}})
	in := func(app, user string) *fabric.Fabric {
		c := remote(s, app, app+"1")
		c.Namespace, c.URL = "other", "nats://"+user+":"+user+"@"+s.Addr().String()
		return open(t, c)
	}
	b := in("b", "b")
	serve(t, b, handler{call: func(_ context.Context, req *call.Request) (*call.Response, error) {
		return &call.Response{Body: []byte(req.Caller)}, nil
	}})
	b.Announce(fabric.Instance{Version: "1"})
	a := in("a@test", "a")
	eventually(t, "b is seen", func() bool { return len(a.Instances("b")) == 1 })
	if resp, err := a.Call(within(t), b1, &call.Request{Method: "m"}); err != nil || string(resp.Body) != "a@test" {
		t.Errorf("in its own name: %v %v", resp, err)
	}
	for _, name := range []string{"a", "c@test", "a@other"} {
		if _, err := in(name, "a").Call(within(t), b1, &call.Request{Method: "m"}); fault.KindOf(err) != fault.Denied {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if len(b.Instances("")) != 1 {
		t.Errorf("b sees %v", b.Instances(""))
	}
}
