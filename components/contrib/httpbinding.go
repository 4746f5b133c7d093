package contrib

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	kitmd "github.com/dapr/kit/metadata"
	kitstrings "github.com/dapr/kit/strings"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// httpBinding is not the library's: that one keeps its connections when it is closed, and cuts what is too long short without
// a word. Requests and answers are the same.
var httpBinding = components.Foreign(components.BindingBlock, "http", "An HTTP server: get, post (also create), put, patch, delete, head, options and trace, by the metadata path; metadata that begins with a capital letter become header fields.",
	func() []components.Field {
		return []components.Field{
			field("url", "string", "URL of the server, to which the metadata path is added.", needed),
			field("responseTimeout", "duration", "How long a request may take with its answer; left out, as long as its caller waits."),
			field("maxResponseBodySize", "string", "Largest body of an answer: a number of bytes, or one with a unit, as 10Mi; 0 or less is no limit.", standard("100Mi")),
			field("errorIfNot2XX", "bool", "An answer of another status is an error; the metadata errorIfNot2XX of a request says it for that one.", standard("true")),
			field("securityTokenHeader", "string", "Header field that each request has, with securityToken."),
			field("securityToken", "string", "Value of that field.", hidden),
			field("MTLSRootCA", "string", "Certificate of the authority that signed the server's: in PEM, or the path of a file."),
			field("MTLSClientCert", "string", "Certificate to present to the server: in PEM, or the path of a file."),
			field("MTLSClientKey", "string", "Key of that certificate: in PEM, or the path of a file.", hidden),
			field("MTLSRenegotiation", "string", "Whether the server may renegotiate TLS.", oneOf("RenegotiateNever", "RenegotiateOnceAsClient", "RenegotiateFreelyAsClient")),
		}
	}, openHTTPBinding)

// httpServer is an HTTP server as a binding.
type httpServer struct {
	url, tokenHeader, token string
	timeout                 time.Duration
	most                    int64 // bytes of a body; 0 or less is no limit
	strict                  bool  // statuses that are no 2xx are errors
	client                  *http.Client
	life                    *life
}

var _ binding.Output = (*httpServer)(nil)

func openHTTPBinding(_ context.Context, host components.Host, s components.Settings) (*httpServer, error) {
	var size struct{ MaxResponseBodySize kitmd.ByteSize }
	err := kitmd.DecodeMetadata(s.Values, &size)
	if err != nil {
		return nil, s.Invalid("maxResponseBodySize", err)
	}
	most, err := size.MaxResponseBodySize.GetBytes()
	if err != nil {
		return nil, s.Invalid("maxResponseBodySize", err)
	}
	secure, key, err := tlsOf(s)
	if err != nil {
		return nil, s.Invalid(key, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 15 * time.Second}).DialContext
	transport.TLSHandshakeTimeout, transport.TLSClientConfig = 15*time.Second, secure
	return &httpServer{
		url: s.Values["url"], tokenHeader: s.Values["securityTokenHeader"], token: s.Values["securityToken"],
		timeout: s.Duration("responseTimeout"), most: most, strict: s.Bool("errorIfNot2XX"),
		client: &http.Client{Transport: transport}, life: newLife(host.Log),
	}, nil
}

// tlsOf is what the manifest says about TLS, or which key is wrong.
func tlsOf(s components.Settings) (c *tls.Config, key string, err error) {
	c = &tls.Config{MinVersion: tls.VersionTLS12}
	read := func(name string) []byte {
		text := s.Values[name]
		if block, _ := pem.Decode([]byte(text)); block != nil || text == "" || err != nil {
			return []byte(text)
		}
		var content []byte
		if content, err = os.ReadFile(text); err != nil {
			key, err = name, fmt.Errorf("is neither PEM nor the path of a file that can be read: %w", errors.Unwrap(err))
		}
		return content
	}
	root, cert, private := read("MTLSRootCA"), read("MTLSClientCert"), read("MTLSClientKey")
	if err != nil {
		return nil, key, err
	}
	if len(root) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(root) {
			return nil, "MTLSRootCA", errors.New("holds no certificate")
		}
	}
	if len(cert) > 0 && len(private) > 0 {
		pair, err := tls.X509KeyPair(cert, private)
		if err != nil {
			return nil, "MTLSClientCert", err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	switch s.Values["MTLSRenegotiation"] {
	case "RenegotiateOnceAsClient":
		c.Renegotiation = tls.RenegotiateOnceAsClient
	case "RenegotiateFreelyAsClient":
		c.Renegotiation = tls.RenegotiateFreelyAsClient
	}
	return c, "", nil
}

// Operations implements binding.Output.
func (h *httpServer) Operations() []string {
	return []string{"create", "get", "head", "post", "put", "patch", "delete", "options", "trace"}
}

// Invoke implements binding.Output.
func (h *httpServer) Invoke(ctx context.Context, r binding.Request) (*binding.Response, error) {
	op := "bindings.http: " + r.Operation
	calling, leave, err := h.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if h.timeout > 0 {
		var cancel context.CancelFunc
		calling, cancel = context.WithTimeout(calling, h.timeout)
		defer cancel()
	}
	request, err := h.request(calling, r)
	if err != nil {
		return nil, fault.E(op, fault.None, fault.BadRequest, withoutURL(err))
	}
	response, err := h.client.Do(request)
	if err != nil {
		return nil, h.life.failure(ctx, op, withoutURL(err))
	}
	defer response.Body.Close()
	body, err := h.body(op, response)
	if err != nil {
		return nil, h.life.failure(ctx, op, err)
	}
	answer := &binding.Response{Data: body, Metadata: map[string]string{
		"statusCode": strconv.Itoa(response.StatusCode), "status": response.Status,
	}}
	for key, values := range response.Header {
		answer.Metadata[key] = strings.Join(values, ", ")
	}
	strict := h.strict
	if own := r.Metadata["errorIfNot2XX"]; own != "" {
		strict = kitstrings.IsTruthy(own)
	}
	if strict && response.StatusCode/100 != 2 {
		kind := fault.KindFromHTTP(response.StatusCode)
		if kind == fault.Exhausted { // which is a limit of the sidecar to who gets it
			kind = fault.Unavailable
		}
		return answer, fault.E(op, kind, fault.BackendFailed, fmt.Errorf("received status code %d", response.StatusCode))
	}
	return answer, nil
}

// withoutURL is an error that does not show the URL, which may be a secret: errors reach the caller, traces and logs.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// request is r as the server gets it.
func (h *httpServer) request(ctx context.Context, r binding.Request) (*http.Request, error) {
	target := h.url
	if path := r.Metadata["path"]; path != "" {
		target = strings.TrimRight(target, "/") + "/" + strings.TrimLeft(path, "/")
	}
	method := strings.ToUpper(r.Operation)
	if method == "CREATE" {
		method = http.MethodPost
	}
	var body io.Reader
	if method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		body = bytes.NewReader(r.Data)
	}
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	const kind = "application/json; charset=utf-8"
	if body != nil {
		request.Header.Set("Content-Type", kind)
	}
	request.Header.Set("Accept", kind)
	if h.token != "" && h.tokenHeader != "" {
		request.Header.Set(h.tokenHeader, h.token)
	}
	for key, value := range r.Metadata {
		if key != "" && key[0] >= 'A' && key[0] <= 'Z' {
			request.Header.Set(key, value)
		}
	}
	for _, key := range []string{"traceparent", "tracestate", "baggage"} {
		if value := r.Metadata[key]; value != "" {
			request.Header.Set(key, value)
		}
	}
	return request, nil
}

// body reads a whole answer, but no more than may be.
func (h *httpServer) body(op string, response *http.Response) ([]byte, error) {
	from := io.Reader(response.Body)
	if h.most > 0 {
		from = io.LimitReader(from, h.most+1)
	}
	body, err := io.ReadAll(from)
	if err == nil && h.most > 0 && int64(len(body)) > h.most {
		return nil, fault.New(op, fault.AnswerTooLarge, "the answer is larger than maxResponseBodySize, %d bytes", h.most)
	}
	return body, err
}

// Close implements binding.Output.
func (h *httpServer) Close(ctx context.Context) error {
	return h.life.close(ctx, "bindings.http: close", func() error {
		h.client.CloseIdleConnections()
		return nil
	})
}
