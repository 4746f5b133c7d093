package components

import (
	"context"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/manifest"
)

// EndpointManifest is an HTTPEndpoint as a user wrote it: an HTTP server outside the fabric that apps invoke by name.
type EndpointManifest struct {
	Name, Namespace string
	Source          Source
	// BaseURL is what the path of a call is added to.
	BaseURL string
	// Headers are sent with every call, in place of the caller's fields of those names.
	Headers []Entry
	// RootCA, Certificate and PrivateKey are PEM; nil means the system's authorities, and no certificate of our own.
	RootCA, Certificate, PrivateKey *Entry
	// Renegotiation is "Never", "OnceAsClient", "FreelyAsClient" or "", which is Never.
	Renegotiation string
	// SecretStore names the component that looks secretKeyRefs up; "" means the environment.
	SecretStore string
	// Scopes lists the apps that may call it; empty means all.
	Scopes []string
}

// For says whether the endpoint is meant for app in namespace.
func (m EndpointManifest) For(namespace, app string) bool {
	return inNamespace(m.Namespace, namespace) && admits(m.Scopes, app)
}

// Same says whether what was made of m serves o as well.
func (m EndpointManifest) Same(o EndpointManifest) bool { return reflect.DeepEqual(m, o) }

// Endpoint is an EndpointManifest whose references are resolved. It holds secrets: nobody shows it.
type Endpoint struct {
	BaseURL, Renegotiation          string
	Headers                         map[string]string
	RootCA, Certificate, PrivateKey []byte
}

// Endpoint resolves the references of m. It fails as opening a component does whose secret cannot be had.
func (s *Set) Endpoint(ctx context.Context, m EndpointManifest) (Endpoint, error) {
	e := Endpoint{BaseURL: m.BaseURL, Renegotiation: m.Renegotiation, Headers: make(map[string]string, len(m.Headers))}
	for _, header := range m.Headers {
		text, err := s.lookup(ctx, m, header)
		if err != nil {
			return Endpoint{}, err
		}
		e.Headers[header.Key] = text
	}
	for _, part := range []struct {
		from *Entry
		to   *[]byte
	}{{m.RootCA, &e.RootCA}, {m.Certificate, &e.Certificate}, {m.PrivateKey, &e.PrivateKey}} {
		if part.from == nil {
			continue
		}
		text, err := s.lookup(ctx, m, *part.from)
		if err != nil {
			return Endpoint{}, err
		}
		*part.to = []byte(text)
	}
	return e, nil
}

func (s *Set) lookup(ctx context.Context, m EndpointManifest, e Entry) (string, error) {
	owner := Manifest{Namespace: m.Namespace, Source: m.Source, SecretStore: m.SecretStore}
	switch {
	case e.Secret != nil:
		return s.secret(ctx, owner, e)
	case e.Env != "":
		return s.env(owner, e, "envRef", e.Env)
	}
	return s.options.Host.expand(e.Value), nil
}

// endpoint reads an HTTPEndpoint.
func (r *reader) endpoint(d *manifest.Document, o *manifest.Object, source Source) {
	m := EndpointManifest{Source: source}
	m.Name, m.Namespace = manifest.Identity(o)
	m.Scopes = o.Strs("scopes")
	auth := o.Child("auth")
	m.SecretStore = auth.Str("secretStore")
	auth.Done()
	spec := o.Child("spec")
	spec.Str("version") // is in many of Dapr's documents and means nothing to it
	m.BaseURL = spec.Need("baseUrl", "like https://api.example.com")
	if u, err := url.Parse(m.BaseURL); m.BaseURL != "" &&
		(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "") {
		d.Fail(spec.Line("baseUrl"), spec.At("baseUrl"), "%q is no URL of http or https without a query, like https://api.example.com", m.BaseURL)
	}
	m.Headers = entries(d, spec, "headers")
	for i := range m.Headers {
		m.Headers[i].section = "spec.headers"
	}
	m.tls(d, spec)
	spec.Done()
	o.Done()
	for _, other := range r.docs.Endpoints {
		if m.Name != "" && m.Name == other.Name && inNamespace(m.Namespace, other.Namespace) {
			d.Fail(source.Line, "metadata.name", "the name %q is taken by %s", m.Name, other.Source)
		}
	}
	r.docs.Endpoints = append(r.docs.Endpoints, m)
}

var renegotiations = []string{"Never", "OnceAsClient", "FreelyAsClient"}

func (m *EndpointManifest) tls(d *manifest.Document, spec *manifest.Object) {
	tls := spec.Child("clientTLS")
	part := func(key string) *Entry {
		p := tls.Get(key)
		if p == nil {
			return nil
		}
		e := &Entry{Key: key, Line: p.Line, section: tls.Path}
		e.reference(d.Object(p.Value, tls.At(key)))
		return e
	}
	m.RootCA, m.Certificate, m.PrivateKey = part("rootCA"), part("certificate"), part("privateKey")
	if (m.Certificate == nil) != (m.PrivateKey == nil) {
		d.Fail(tls.Node.Line, tls.Path, "needs both certificate and privateKey, or neither")
	}
	m.Renegotiation = tls.Str("renegotiation")
	if m.Renegotiation != "" && !slices.Contains(renegotiations, m.Renegotiation) {
		d.Fail(tls.Line("renegotiation"), tls.At("renegotiation"), "%q is none of %s", m.Renegotiation, strings.Join(renegotiations, ", "))
	}
	tls.Done()
}
