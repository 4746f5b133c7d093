package contrib

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// mqttConnects are the keys of both components of MQTT by which they connect.
func mqttConnects() []components.Field {
	return []components.Field{
		field("url", "string", "URL of the server: mqtt://user:password@host:1883, or mqtts: with TLS.", needed, hidden),
		field("caCert", "string", "Certificate of the authority that signed the server's, in PEM.", hidden),
		field("clientCert", "string", "Certificate to present to the server, in PEM.", hidden),
		field("clientKey", "string", "Key of that certificate, in PEM.", hidden),
	}
}

const (
	atLeastOnce = 1
	// connecting is how long a connection may take to come about, publishing how long the server may take to confirm.
	connecting = 10 * time.Second
	// goodbye is how long what is on its way has to leave, in milliseconds.
	goodbye = 200
)

// mqttServer is a server as the settings name it.
type mqttServer struct {
	url *url.URL
	tls *tls.Config
}

// mqttServerOf reads the settings. An error is about the setting key.
func mqttServerOf(values map[string]string) (s *mqttServer, key string, err error) {
	at, err := url.Parse(values["url"])
	if err != nil || at.Host == "" {
		return nil, "url", errors.New("the url is no URL with a host")
	}
	s = &mqttServer{url: at, tls: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: at.Hostname()}}
	if pem := values["caCert"]; pem != "" {
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return nil, "caCert", errors.New("caCert holds no certificate")
		}
	}
	if cert, private := values["clientCert"], values["clientKey"]; cert != "" || private != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(private))
		if err != nil {
			return nil, "clientCert", fmt.Errorf("clientCert and clientKey: %w", err)
		}
		s.tls.Certificates = []tls.Certificate{pair}
	}
	return s, "", nil
}

// options are those of a client of that name.
func (s *mqttServer) options(name string, clean bool) *mqtt.ClientOptions {
	scheme := s.url.Scheme
	switch scheme {
	case "mqtt":
		scheme = "tcp"
	case "mqtts", "tcps", "tls":
		scheme = "ssl"
	}
	password, _ := s.url.User.Password()
	return mqtt.NewClientOptions().AddBroker(scheme + "://" + s.url.Host).SetClientID(name).
		SetUsername(s.url.User.Username()).SetPassword(password).SetTLSConfig(s.tls).SetCleanSession(clean).
		SetAutoAckDisabled(true).SetConnectTimeout(connecting)
}

// await waits for what a client was asked to do.
func await(ctx context.Context, token mqtt.Token) error {
	late := time.NewTimer(connecting)
	defer late.Stop()
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
		return fault.New("mqtt3", fault.BackendDown, "the server does not answer")
	}
}
