package fabric

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/sidecast/sidecast/fault"
)

// connectRemote joins the user's NATS servers. What waiting cannot cure fails at once; a server that is not there yet is
// waited for until ctx ends.
func (f *Fabric) connectRemote(ctx context.Context) error {
	const op = "join remote fabric"
	servers, err := splitURLs(f.config.URL)
	if err != nil {
		return err
	}
	options, err := f.config.remoteOptions()
	if err != nil {
		return err
	}
	options = append(append(f.link.options(f.config.AppID+"/"+f.config.Instance),
		nats.ReconnectWait(100*time.Millisecond), nats.ReconnectJitter(100*time.Millisecond, 200*time.Millisecond),
		nats.PingInterval(5*time.Second), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(10*time.Second)), options...)
	for {
		timeout := 2 * time.Second
		if deadline, bounded := ctx.Deadline(); bounded {
			timeout = max(min(timeout, time.Until(deadline)), time.Millisecond)
		}
		err := f.link.dial(strings.Join(servers, ","), append(options, nats.Timeout(timeout)))
		if err == nil {
			return nil
		}
		if certificateRefused(err) {
			return fault.New(op, fault.FabricConfig, "%s refused the client certificate, or wants one: %w", describeURLs(f.config.URL), err)
		}
		if hopeless(err) {
			return fault.New(op, fault.FabricConfig, "%s refused: %w", describeURLs(f.config.URL), err)
		}
		select {
		case <-ctx.Done():
			return fault.New(op, fault.FabricDown, "%s cannot be reached: %w", describeURLs(f.config.URL), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// hopeless tells errors that stay until the configuration is changed.
func hopeless(err error) bool {
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	for _, fatal := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
		nats.ErrSecureConnRequired, nats.ErrSecureConnWanted, nats.ErrNkeysNotSupported} {
		if errors.Is(err, fatal) {
			return true
		}
	}
	return errors.As(err, &unknown) || errors.As(err, &hostname) || errors.As(err, &invalid) || errors.As(err, &record) ||
		errors.As(err, &alert)
}

// certificateRefused tells that the server wants a client certificate, or another one. TLS 1.3 reports it late: as an alert
// from the remote, or just as a connection that ends after the handshake (nats.go has only words for that).
func certificateRefused(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "remote error" ||
		strings.Contains(err.Error(), "connection closed by remote after TLS handshake")
}

// splitURLs checks the addresses. Its errors never repeat one: it may hold a password.
func splitURLs(list string) ([]string, error) {
	const op = "join remote fabric"
	var servers []string
	for i, one := range strings.Split(list, ",") {
		one = strings.TrimSpace(one)
		if one == "" {
			continue
		}
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		switch {
		case err != nil:
			return nil, fault.New(op, fault.FabricConfig, "address %d of the fabric is no URL: write nats://host:port or tls://host:port", i+1)
		case u.Scheme != "nats" && u.Scheme != "tls":
			return nil, fault.New(op, fault.FabricConfig, "address %d of the fabric has the scheme %q: write nats://host:port or tls://host:port", i+1, u.Scheme)
		case u.Hostname() == "":
			return nil, fault.New(op, fault.FabricConfig, "address %d of the fabric names no host: write nats://host:port or tls://host:port", i+1)
		}
		servers = append(servers, one)
	}
	if len(servers) == 0 {
		return nil, fault.New(op, fault.FabricConfig, "the fabric's URL holds no address")
	}
	return servers, nil
}

// describeURLs is the addresses without credentials.
func describeURLs(list string) string {
	servers, err := splitURLs(list)
	if err != nil {
		return "remote"
	}
	for i, one := range servers {
		if u, err := url.Parse(one); err == nil {
			servers[i] = u.Scheme + "://" + u.Host
		}
	}
	return strings.Join(servers, ",")
}

// remoteOptions reads the files that say who this sidecar is.
func (c Config) remoteOptions() ([]nats.Option, error) {
	const op = "join remote fabric"
	var options []nats.Option
	for _, file := range []struct{ what, name string }{
		{"credentials", c.Credentials}, {"nkey seed", c.NKeySeedFile}, {"CA", c.CAFile}, {"certificate", c.CertFile}, {"certificate's key", c.KeyFile},
	} {
		if file.name == "" {
			continue
		}
		if _, err := os.ReadFile(file.name); err != nil {
			return nil, fault.New(op, fault.FabricConfig, "the %s file cannot be read: %w", file.what, err)
		}
	}
	if c.Credentials != "" {
		text, _ := os.ReadFile(c.Credentials) // it could be read a moment ago
		if _, err := nkeys.ParseDecoratedJWT(text); err != nil || len(bytes.TrimSpace(text)) == 0 {
			return nil, fault.New(op, fault.FabricConfig, "%s holds no credentials: a user JWT and its nkey seed are expected", c.Credentials)
		}
		options = append(options, nats.UserCredentials(c.Credentials))
	}
	if c.NKeySeedFile != "" {
		seed, err := nats.NkeyOptionFromSeed(c.NKeySeedFile)
		if err != nil {
			return nil, fault.New(op, fault.FabricConfig, "%s holds no nkey seed: %w", c.NKeySeedFile, err)
		}
		options = append(options, seed)
	}
	if c.CAFile != "" {
		pem, _ := os.ReadFile(c.CAFile) // it could be read a moment ago
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return nil, fault.New(op, fault.FabricConfig, "%s holds no PEM certificate", c.CAFile)
		}
		options = append(options, nats.RootCAs(c.CAFile))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, fault.New(op, fault.FabricConfig, "a client certificate and its key go together: one of the two files is not named")
	}
	if c.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile); err != nil {
			return nil, fault.New(op, fault.FabricConfig, "the certificate and its key do not make a pair: %w", err)
		}
		options = append(options, nats.ClientCert(c.CertFile, c.KeyFile))
	}
	return options, nil
}
