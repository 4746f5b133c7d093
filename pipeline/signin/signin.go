// Package signin is the HTTP middleware `oauth2` of Dapr: requests of a browser that has not signed in are sent to an
// authorization server, and those of one that has carry its token on in a header field (OAuth 2.0, RFC 6749, 4.1).
//
// Who has signed in is kept in memory, for two hours: a sidecar that starts anew asks again, and so does another one. What
// is kept is bounded: of those that are about to sign in the oldest go first.
package signin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pipeline"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	ClientID       string `meta:"clientID,required" doc:"The client id."`
	ClientSecret   string `meta:"clientSecret,required" secret:"true" doc:"Its secret."`
	Scopes         string `meta:"scopes" doc:"Scopes to ask for, separated by commas."`
	AuthURL        string `meta:"authURL,required" doc:"Where a browser is sent to sign in."`
	TokenURL       string `meta:"tokenURL,required" doc:"Where the token is to be had."`
	RedirectURL    string `meta:"redirectURL" doc:"Where the authorization server sends the browser back to: a URL that passes this middleware."`
	AuthHeaderName string `meta:"authHeaderName" default:"Authorization" doc:"The header field that carries the token on."`
	ForceHTTPS     string `meta:"forceHTTPS" doc:"true sends the browser back to where it came from over https."`
	PathFilter     string `meta:"pathFilter" doc:"Regular expression of the paths that ask for a sign-in; left out, all."`
}

// Component makes the middleware known to the runtime.
var Component = components.Middleware("oauth2", "Has browsers sign in at an authorization server (OAuth 2, authorization code) and hands the token on.", open)

var _ pipeline.Middleware = (*middleware)(nil)

const (
	cookie = "gosessionsid" // as daprd calls it
	// exchange bounds how long the authorization server may take for a token.
	exchange = 30 * time.Second
)

type middleware struct {
	client   oauth2.Config
	header   string
	https    bool
	filter   *regexp.Regexp // nil: all
	sessions *sessions
	log      *slog.Logger
}

func open(_ context.Context, host components.Host, c Config) (pipeline.Middleware, error) {
	m := &middleware{
		client: oauth2.Config{
			ClientID: c.ClientID, ClientSecret: c.ClientSecret, RedirectURL: c.RedirectURL,
			Endpoint: oauth2.Endpoint{AuthURL: c.AuthURL, TokenURL: c.TokenURL},
		},
		header: c.AuthHeaderName, sessions: newSessions(), log: host.Log,
	}
	m.https = slices.Contains([]string{"y", "yes", "true", "t", "on", "1"}, strings.ToLower(c.ForceHTTPS)) // what is true to Dapr
	if c.Scopes != "" {
		m.client.Scopes = strings.Split(c.Scopes, ",")
	}
	if c.PathFilter != "" {
		var err error
		if m.filter, err = regexp.Compile(c.PathFilter); err != nil {
			return nil, fault.New(host.Component+": spec.metadata.pathFilter", fault.BadManifest, "is no regular expression: %w", err)
		}
	}
	return m, nil
}

// Close implements pipeline.Middleware.
func (*middleware) Close(context.Context) error { return nil }

// Wrap implements pipeline.Middleware.
func (m *middleware) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.filter != nil && !m.filter.MatchString(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		var s session
		if c, err := r.Cookie(cookie); err == nil {
			s = m.sessions.get(c.Value, time.Now())
		}
		switch {
		case s.authorization != "":
			r.Header.Set(m.header, s.authorization) // in the place of what the client says
			next.ServeHTTP(w, r)
		case r.URL.Query().Get("state") == "":
			m.begin(w, r)
		default:
			m.finish(w, r, s)
		}
	})
}

// begin sends the browser to the authorization server.
func (m *middleware) begin(w http.ResponseWriter, r *http.Request) {
	// Of the sidecar itself, whatever the request says: a path of two slashes would name another host.
	back := url.URL{Path: "/" + strings.TrimLeft(r.URL.Path, "/"), RawQuery: r.URL.RawQuery}
	if raw := r.URL.RawPath; raw != "" {
		back.RawPath = "/" + strings.TrimLeft(raw, "/")
	}
	if m.https {
		back.Scheme, back.Host = "https", r.Host
	}
	state := rand.Text()
	m.remember(w, m.sessions.add(session{state: state, back: back.String()}, time.Now()))
	redirect(w, m.client.AuthCodeURL(state, oauth2.AccessTypeOffline))
}

// finish takes a browser back that the authorization server has sent.
func (m *middleware) finish(w http.ResponseWriter, r *http.Request, s session) {
	query := r.URL.Query()
	code := query.Get("code")
	switch {
	case s.state == "" || subtle.ConstantTimeCompare([]byte(s.state), []byte(query.Get("state"))) != 1:
		refuse(w, http.StatusBadRequest, "invalid state")
		return
	case code == "":
		refuse(w, http.StatusBadRequest, "code not found")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), exchange)
	defer cancel()
	token, err := m.client.Exchange(ctx, code)
	if err != nil {
		m.log.Warn("the authorization server gives no token", "error", err)
		refuse(w, http.StatusInternalServerError, http.StatusText(http.StatusInternalServerError))
		return
	}
	c, _ := r.Cookie(cookie) // there is one, for there is a session
	m.sessions.remove(c.Value)
	m.remember(w, m.sessions.add(session{authorization: token.Type() + " " + token.AccessToken}, time.Now())) // under a new name
	redirect(w, s.back)
}

func (m *middleware) remember(w http.ResponseWriter, id string) {
	http.SetCookie(w, &http.Cookie{
		Name: cookie, Value: id, Path: "/", HttpOnly: true, Secure: m.https, SameSite: http.SameSiteLaxMode,
		Expires: time.Now().Add(lifetime), MaxAge: int(lifetime.Seconds()),
	})
}

func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a client that went away needs no answer
}
