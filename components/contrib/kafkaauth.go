package contrib

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	contribaws "github.com/dapr/components-contrib/common/aws"
	contribauth "github.com/dapr/components-contrib/common/aws/auth"
	kitpem "github.com/dapr/kit/crypto/pem"
	"github.com/dapr/kit/logger"
	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/twmb/franz-go/pkg/sasl"
	kafkaaws "github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	kafkaplain "github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// kafkaSecurity is how connections are encrypted, nil if they are not, and how they sign in, nil if they do not.
func kafkaSecurity(values map[string]string, log logger.Logger) (*tls.Config, sasl.Mechanism, error) {
	kind := values["authType"]
	if kind == "" {
		switch required, err := strconv.ParseBool(values["authRequired"]); {
		case err != nil:
			return nil, nil, errors.New("authType is missing; valid: none, password, mtls, certificate, oidc, oidc_private_key_jwt, awsiam")
		case !required:
			kind = "none"
		case values["saslPassword"] != "":
			kind = "password"
		default:
			kind = "mtls"
		}
	}
	plainText, err := strconv.ParseBool(cmp.Or(values["disableTls"], "false"))
	if err != nil {
		return nil, nil, err
	}
	needed := func(keys ...string) error {
		for _, key := range keys {
			if values[key] == "" {
				return fmt.Errorf("authType %s needs %s", kind, key)
			}
		}
		return nil
	}
	secure, err := kafkaTLS(values)
	if err != nil {
		return nil, nil, err
	}
	var mechanism sasl.Mechanism
	switch kind {
	case "none":
		return nil, nil, nil
	case "password":
		err = needed("saslUsername", "saslPassword")
		mechanism = kafkaPassword(values)
	case "mtls":
		if err = needed("clientCert", "clientKey"); err == nil && plainText {
			err = errors.New("authType mtls cannot be with disableTls")
		}
	case "certificate":
		err = needed("caCert")
	case "oidc", "oidc_private_key_jwt":
		if err = needed("oidcTokenEndpoint", "oidcClientID"); err == nil && kind == "oidc" {
			err = needed("oidcClientSecret")
		} else if err == nil {
			err = needed("oidcClientAssertionCert", "oidcClientAssertionKey")
		}
		if err == nil {
			mechanism, err = kafkaTokens(kind, values, secure)
		}
	case "awsiam":
		if err = needed("region"); err == nil {
			mechanism = kafkaIAM(values, log)
		}
	}
	if plainText {
		secure = nil
	}
	return secure, mechanism, err
}

func kafkaTLS(values map[string]string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: values["skipVerify"] == "true"}
	if ca := values["caCert"]; ca != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("caCert holds no certificate")
		}
	}
	if values["clientCert"]+values["clientKey"] != "" {
		pair, err := tls.X509KeyPair([]byte(values["clientCert"]), []byte(values["clientKey"]))
		if err != nil {
			return nil, fmt.Errorf("clientCert and clientKey: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// kafkaDialer connects, with TLS unless secure is nil.
func kafkaDialer(secure *tls.Config, dialer *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	if secure == nil {
		return dialer.DialContext
	}
	return (&tls.Dialer{NetDialer: dialer, Config: secure}).DialContext
}

func kafkaPassword(values map[string]string) sasl.Mechanism {
	user, password := values["saslUsername"], values["saslPassword"]
	switch values["saslMechanism"] {
	case "SHA-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism()
	case "SHA-512":
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism()
	}
	return kafkaplain.Auth{User: user, Pass: password}.AsMechanism()
}

// kafkaTokens signs in with tokens of an OpenID provider, which are asked for anew shortly before they end.
func kafkaTokens(kind string, values map[string]string, secure *tls.Config) (sasl.Mechanism, error) {
	var extensions map[string]string
	if text := values["oidcExtensions"]; text != "" {
		if err := json.Unmarshal([]byte(text), &extensions); err != nil || len(extensions) == 0 {
			return nil, errors.New("oidcExtensions is no object of texts in JSON")
		}
	}
	scopes := strings.FieldsFunc(cmp.Or(values["oidcScopes"], "openid"), func(r rune) bool { return r == ',' || r == ' ' })
	config := &clientcredentials.Config{
		ClientID: values["oidcClientID"], ClientSecret: values["oidcClientSecret"], TokenURL: values["oidcTokenEndpoint"], Scopes: scopes,
	}
	var key *rsa.PrivateKey
	if kind == "oidc_private_key_jwt" {
		parsed, err := kitpem.DecodePEMPrivateKey([]byte(values["oidcClientAssertionKey"]))
		if err != nil {
			return nil, fmt.Errorf("oidcClientAssertionKey: %w", err)
		}
		var ok bool
		if key, ok = parsed.(*rsa.PrivateKey); !ok {
			return nil, errors.New("oidcClientAssertionKey is no key of RSA")
		}
		config.AuthStyle, config.ClientSecret = oauth2.AuthStyleInParams, ""
	}
	web := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: secure.Clone(), DisableKeepAlives: true}}
	tokens := oauth2.ReuseTokenSource(nil, tokenSource(func() (*oauth2.Token, error) {
		asking := *config
		if key != nil {
			parameters, err := assertion(key, values)
			if err != nil {
				return nil, err
			}
			asking.EndpointParams = parameters
		}
		return asking.Token(context.WithValue(context.Background(), oauth2.HTTPClient, web))
	}))
	return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
		token, err := tokens.Token()
		if err != nil {
			return oauth.Auth{}, err
		}
		return oauth.Auth{Token: token.AccessToken, Extensions: extensions}, nil
	}), nil
}

type tokenSource func() (*oauth2.Token, error)

func (s tokenSource) Token() (*oauth2.Token, error) { return s() }

// assertion is what a client proves itself with instead of a secret: RFC 7523, 2.2.
func assertion(key *rsa.PrivateKey, values map[string]string) (map[string][]string, error) {
	id, now := values["oidcClientID"], time.Now()
	token, err := jwt.NewBuilder().Issuer(id).Subject(id).Audience([]string{cmp.Or(values["oidcAudience"], values["oidcTokenEndpoint"])}).
		IssuedAt(now).NotBefore(now).Expiration(now.Add(time.Minute)).JwtID(uuid.NewString()).Build()
	if err != nil {
		return nil, err
	}
	token.Options().Enable(jwt.FlattenAudience) // some providers read no list
	var options []jwt.Option
	if kid := values["oidcKid"]; kid != "" {
		headers := jws.NewHeaders()
		if err := headers.Set("kid", kid); err != nil {
			return nil, err
		}
		options = append(options, jws.WithProtectedHeaders(headers))
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.RS256, key, options...))
	if err != nil {
		return nil, err
	}
	parameters := map[string][]string{
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {string(bytes.TrimSpace(signed))},
	}
	for name, key := range map[string]string{"audience": "oidcAudience", "resource": "oidcResource"} {
		if values[key] != "" {
			parameters[name] = []string{values[key]}
		}
	}
	return parameters, nil
}

// kafkaIAM signs in with credentials of AWS.
func kafkaIAM(values map[string]string, log logger.Logger) sasl.Mechanism {
	return kafkaaws.ManagedStreamingIAM(func(ctx context.Context) (kafkaaws.Auth, error) {
		config, err := contribaws.NewConfig(ctx, contribauth.Options{
			Logger: log, Region: values["region"], AccessKey: values["accessKey"], SecretKey: values["secretKey"], SessionToken: values["sessionToken"],
			AssumeRoleArn: values["assumeRoleArn"], AssumeRoleSessionName: values["sessionName"],
			TrustAnchorArn: values["trustAnchorArn"], TrustProfileArn: values["trustProfileArn"], Properties: values,
		})
		if err != nil {
			return kafkaaws.Auth{}, err
		}
		c, err := config.Credentials.Retrieve(ctx)
		return kafkaaws.Auth{AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey, SessionToken: c.SessionToken}, err
	})
}
