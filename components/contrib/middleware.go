package contrib

import (
	"context"
	"io"
	"net/http"
	"time"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribmiddleware "github.com/dapr/components-contrib/middleware"
	"github.com/dapr/components-contrib/middleware/http/bearer"
	"github.com/dapr/components-contrib/middleware/http/oauth2clientcredentials"
	"github.com/dapr/components-contrib/middleware/http/routeralias"
	"github.com/dapr/components-contrib/middleware/http/routerchecker"
	"github.com/dapr/kit/logger"
	"golang.org/x/oauth2"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pipeline"
)

// middleware are those of the default build.
var middleware = []components.Component{
	middlewareOf("bearer", "Lets requests pass that carry a token of OpenID Connect (a JWT) of an issuer, and answers 401 to others.", bearerFields, bearer.NewBearerMiddleware, nil),
	middlewareOf("oauth2clientcredentials", "Adds a token to requests that the sidecar gets for itself by the client credentials of OAuth 2.",
		clientCredentialsFields, oauth2clientcredentials.NewOAuth2ClientCredentialsMiddleware, answered502),
	middlewareOf("routeralias", "Leads paths to other paths.", routerAliasFields, routeralias.NewMiddleware, nil),
	middlewareOf("routerchecker", "Lets requests pass whose path matches a regular expression, and answers 400 to others.",
		routerCheckerFields, routerchecker.NewMiddleware, nil),
}

func bearerFields() []components.Field {
	return []components.Field{
		field("issuer", "string", "Who has issued the tokens: what they say in `iss`, to the letter.", needed, also("issuerURL")),
		field("audience", "string", "Whom they are for: what they say in `aud`, most often a client id.", needed, also("clientID")),
		field("jwksURL", "string", "Where the issuer's keys are; left out, its document /.well-known/openid-configuration says so."),
	}
}

func clientCredentialsFields() []components.Field {
	return []components.Field{
		field("clientID", "string", "The client id.", needed),
		field("clientSecret", "string", "Its secret.", needed, hidden),
		field("scopes", "string", "Scopes to ask for, separated by commas.", needed),
		field("tokenURL", "string", "Where tokens are to be had.", needed),
		field("headerName", "string", "The header field that carries the token on.", needed),
		field("endpointParamsQuery", "string", "More parameters of the request for a token, as a query: a=1&b=2."),
		field("authStyle", "int", "How the client's id and secret are sent: 1 in the body, 2 as HTTP basic authorization, 0 tries both.", standard("0"), within("0", "2")),
		field("pathFilter", "string", "Regular expression of the paths that get a token; left out, all."),
	}
}

func routerAliasFields() []components.Field {
	return []components.Field{
		field("routes", "string", "Object in JSON or YAML of paths and the paths they lead to; {name} in a path becomes a parameter of the query."),
		field(components.AnyKey, "string", "Older form: a path as the key, and the path that it leads to as the value."),
	}
}

func routerCheckerFields() []components.Field {
	return []components.Field{field("rule", "string", "The regular expression.", needed)}
}

// middlewareOf makes a component of the library's middleware. After, if set, wraps it once more.
func middlewareOf(product, doc string, fields func() []components.Field, make func(logger.Logger) contribmiddleware.Middleware,
	after func(wrap func(http.Handler) http.Handler) func(http.Handler) http.Handler) components.Component {
	return components.Foreign(components.MiddlewareBlock, "http."+product, doc, fields, func(ctx context.Context, host components.Host, s components.Settings) (pipeline.Middleware, error) {
		m := &wrapper{}
		var alive context.Context
		alive, m.end = context.WithCancel(context.Background())
		opened := context.AfterFunc(ctx, m.end) // it has no time of its own to open in
		var err error
		m.wrap, err = make(newLogs(host.Log, nil)).GetHandler(alive, contribmiddleware.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: s.Values}})
		if !opened() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			m.end()
			return nil, badOpen(ctx, "middleware.http."+product+": open", s, err)
		}
		if after != nil {
			m.wrap = after(m.wrap)
		}
		return m, nil
	})
}

// wrapper makes middleware of the library one of ours. The library's own goroutines end with its context.
type wrapper struct {
	wrap func(http.Handler) http.Handler
	end  context.CancelFunc
}

var _ pipeline.Middleware = (*wrapper)(nil)

// Wrap implements pipeline.Middleware.
func (m *wrapper) Wrap(next http.Handler) http.Handler { return m.wrap(next) }

// Close implements pipeline.Middleware.
func (m *wrapper) Close(context.Context) error {
	m.end()
	return nil
}

// tokenClient asks token servers in the place of the standard client, which waits for ever.
var tokenClient = &http.Client{Timeout: 30 * time.Second}

// answered502 answers where the library does not: when it gets no token it says nothing, which clients read as 200. It does
// not wait for a token for longer than tokenClient does.
func answered502(wrap func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		inner := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p := r.Context().Value(passedKey{}).(*passed)
			p.on = true
			next.ServeHTTP(w, r.WithContext(p.ctx)) // the client is for tokens alone
		}))
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p := &passed{ctx: r.Context()}
			ctx := context.WithValue(context.WithValue(p.ctx, passedKey{}, p), oauth2.HTTPClient, tokenClient)
			inner.ServeHTTP(w, r.WithContext(ctx))
			if !p.on {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				w.WriteHeader(http.StatusBadGateway)
				_, _ = io.WriteString(w, "no token could be had") // a client that went away needs no answer
			}
		})
	}
}

type passedKey struct{}

// passed says whether a request has gone on to what follows, and what its context was.
type passed struct {
	ctx context.Context
	on  bool
}
