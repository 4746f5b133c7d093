package daprapi

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/api/bodies"
	"github.com/sidecast/sidecast/api/entrance"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/telemetry"
)

const tokenHeader = "dapr-api-token"

// params are the parts of a path that a route names.
type params map[string]string

// route is one path of the API. Segments in braces match any one segment, a last * all that follow, at least one.
type route struct {
	methods string // separated by spaces
	path    string
	name    string // for the log
	handle  func(w http.ResponseWriter, r *http.Request, p params) error
}

// routes are looked through in order: what is more special comes first.
func routes(s *Server) []route {
	all := []route{
		{"GET", "v1.0/state/{storeName}/{key}", "GetState", s.getState},
		{"DELETE", "v1.0/state/{storeName}/{key}", "DeleteState", s.deleteState},
		{"POST PUT", "v1.0/state/{storeName}", "SaveState", s.saveState},
		{"POST PUT", "v1.0/state/{storeName}/bulk", "GetBulkState", s.bulkGetState},
		{"POST PUT", "v1.0/state/{storeName}/transaction", "ExecuteStateTransaction", s.transactState},
		{"POST PUT", "v1.0-alpha1/state/{storeName}/query", "QueryStateAlpha1", s.queryState},
		{"POST PUT", "v1.0/publish/bulk/{pubsubname}/*", "BulkPublishEvent", s.bulkPublish},
		{"POST PUT", "v1.0-alpha1/publish/bulk/{pubsubname}/*", "BulkPublishEvent", s.bulkPublish},
		{"POST PUT", "v1.0/publish/{pubsubname}/*", "PublishEvent", s.publish},
		{"POST", "v1.0-alpha1/lock/{storeName}", "TryLock", s.tryLock},
		{"POST", "v1.0-alpha1/unlock/{storeName}", "Unlock", s.unlock},
		{"GET", "v1.0/secrets/{secretStoreName}/bulk", "GetBulkSecret", s.bulkGetSecret},
		{"GET", "v1.0/secrets/{secretStoreName}/{key}", "GetSecret", s.getSecret},
		{"PUT", "v1.0-alpha1/crypto/{name}/encrypt", "Encrypt", s.encrypt},
		{"PUT", "v1.0-alpha1/crypto/{name}/decrypt", "Decrypt", s.decrypt},
		{"POST", "v1.0-alpha1/conversation/{name}/converse", "Converse", s.converseAlpha1},
		{"POST", "v1.0-alpha2/conversation/{name}/converse", "Converse", s.converseAlpha2},
		{"POST PUT", "v1.0/bindings/{name}", "InvokeBinding", s.invokeBinding},
		{"POST", "v1.0/shutdown", "Shutdown", s.shutdown},
	}
	for _, version := range []string{"v1.0", "v1.0-alpha1"} {
		all = append(all,
			route{"GET", version + "/configuration/{storeName}", "GetConfiguration", s.getConfiguration},
			route{"GET", version + "/configuration/{storeName}/subscribe", "SubscribeConfiguration", s.subscribeConfiguration},
			route{"GET", version + "/configuration/{storeName}/{configurationSubscribeID}/unsubscribe", "UnsubscribeConfiguration", s.unsubscribeConfiguration})
	}
	all = append(all, subtleRoutes(s)...)
	all = append(all, publicRoutes(s)...)
	return all
}

// Route is a path of the HTTP API that is served.
type Route struct {
	Methods []string
	Path    string // with parameters in braces, and * for all that follows
	Absent  bool   // answers only that there is no such thing
}

// Routes are all paths but those of invocation, which takes any.
func Routes() []Route {
	var all []Route
	s := &Server{}
	for i, list := range [][]route{routes(s), absentRoutes(s)} {
		for _, r := range list {
			all = append(all, Route{Methods: strings.Fields(r.methods), Path: "/" + r.path, Absent: i == 1})
		}
	}
	return all
}

// publicRoutes are those that are also served on the public port.
func publicRoutes(s *Server) []route {
	return []route{
		{"GET", "v1.0/healthz", "Healthz", s.healthz},
		{"GET", "v1.0/healthz/outbound", "HealthzOutbound", s.healthzOutbound},
		{"GET", "v1.0/metadata", "GetMetadata", s.getMetadata},
		{"PUT", "v1.0/metadata/{key}", "PutMetadata", s.putMetadata},
	}
}

// handler is what every request passes: of the API, or of the port for health and metadata alone.
func (s *Server) handler(api bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		place, done := entrance.Begin(r)
		defer done()
		if !s.baggage(w, r) {
			return
		}
		ctx, trace := s.traceOfRequest(r)
		now := s.now.Load()
		t := &now.public
		if api {
			t = &now.api
		}
		var heard *heardCall
		if now.Logging.Calls && api || s.o.Metrics != nil || trace != nil {
			heard = &heardCall{ResponseWriter: w, status: http.StatusOK, trace: trace}
			if api {
				heard.logging = now.Logging
			}
			defer s.tell(r, r.URL.Path, time.Now(), heard)
			w = heard
		}
		defer s.contain(w, r)
		if s.cors(w, r) {
			return
		}
		if api && !s.admitted(w, r) {
			return
		}
		share := s.o.Bodies.OpenAt(place)
		defer share.Close()
		// A copy: by the body of its own request the server knows whether what is left of it is still on the connection.
		r = r.WithContext(share.Context(ctx))
		if s.o.MaxBody > 0 {
			r.Body = &limited{ReadCloser: r.Body, left: s.o.MaxBody}
		}
		var err error
		if !api || s.pipeline.Idle() {
			err = t.dispatch(w, r, heard)
		} else {
			share.Leave() // middleware may ask others
			err = s.pipeline.Serve(w, passThrough(r, t, heard))
		}
		if err != nil {
			s.refuse(w, err)
		}
	})
}

// refuse answers with an error and counts it.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	p := problemOf(err)
	s.count(p)
	p.write(w)
}

// passed takes a request that has passed all middleware.
func (s *Server) passed(w http.ResponseWriter, r *http.Request) {
	p := r.Context().Value(passingKey{}).(*passing)
	p.restore(r)
	_, err := pipeline.Settle(r, p.body, p.length)
	if err == nil {
		err = p.table.dispatch(w, r, p.heard)
	}
	if err != nil {
		s.refuse(w, err)
	}
}

// invokePath is the route that takes what no other does.
const invokePath = "v1.0/invoke/*"

// table is the routes that are served.
type table struct {
	entries   []entry
	otherwise func(w http.ResponseWriter, r *http.Request) error // takes what no route does; nil refuses it
}

// newTable is those of the routes that are served.
func newTable(all []route, apis *access.APIs) (t table) {
	for _, r := range all {
		if apis.HTTP(r.path) {
			t.entries = append(t.entries, entry{strings.Fields(r.methods), strings.Split(r.path, "/"), r.name, r.handle})
		}
	}
	return t
}

// entry is a route made ready to be looked up.
type entry struct {
	methods, parts []string
	name           string
	handle         func(w http.ResponseWriter, r *http.Request, p params) error
}

func (t *table) dispatch(w http.ResponseWriter, r *http.Request, heard *heardCall) error {
	e, p, other, err := t.find(r.Method, cleanPath(r))
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case e != nil:
		heard.route(r, e.name)
		heard.tellPlace(r, e, p)
		return e.handle(w, r, p)
	case t.otherwise != nil:
		heard.route(r, "InvokeService")
		return t.otherwise(w, r)
	case other:
		w.WriteHeader(http.StatusMethodNotAllowed)
	default:
		http.NotFound(w, r)
	}
	return nil
}

// cleanPath is the path of r as it was escaped, with single slashes and without dots.
func cleanPath(r *http.Request) string {
	whole := r.URL.EscapedPath()
	if !strings.HasPrefix(whole, "/") {
		whole = "/" + whole
	}
	return path.Clean(whole)
}

// find looks up the route of a clean path. Other says that the path has one for other methods.
func (t *table) find(method, clean string) (e *entry, p params, other bool, err error) {
	var most [8]string // more than the segments of most paths
	segments := most[:0]
	for segment := range strings.SplitSeq(clean[1:], "/") {
		segments = append(segments, segment)
	}
	for i := range t.entries {
		e := &t.entries[i]
		if !slices.Contains(e.methods, method) {
			if t.otherwise == nil {
				_, ok, _ := match(e.parts, segments)
				other = other || ok
			}
			continue
		}
		if p, ok, err := match(e.parts, segments); ok || err != nil {
			return e, p, false, err
		}
	}
	return nil, nil, other, nil
}

// match reads the parameters of a path that has the form of pattern.
func match(pattern, segments []string) (params, bool, error) {
	wild := pattern[len(pattern)-1] == "*"
	if len(segments) < len(pattern) || len(segments) > len(pattern) && !wild {
		return nil, false, nil
	}
	for i, want := range pattern {
		if want != segments[i] && want != "*" && want[0] != '{' {
			return nil, false, nil
		}
	}
	p := params{}
	for i, want := range pattern {
		name, value := strings.Trim(want, "{}"), segments[i]
		switch {
		case want == "*":
			value = strings.Join(segments[i:], "/")
		case want[0] != '{':
			continue
		}
		plain, err := url.QueryUnescape(value)
		if err != nil {
			return nil, false, errors.New("failed to unescape request parameter \"" + name + "\". Error: " + err.Error())
		}
		p[name] = plain
	}
	return p, true, nil
}

// admitted checks the token and takes it out, so that it goes nowhere.
func (s *Server) admitted(w http.ResponseWriter, r *http.Request) bool {
	if s.o.Token == "" {
		return true
	}
	given := r.Header.Get(tokenHeader)
	r.Header.Del(tokenHeader)
	trimmed := strings.Trim(r.URL.Path, "/")
	health := r.Method == http.MethodGet && (trimmed == "v1.0/healthz" || trimmed == "v1.0/healthz/outbound")
	if health || subtle.ConstantTimeCompare([]byte(given), []byte(s.o.Token)) == 1 {
		return true
	}
	http.Error(w, "invalid api token", http.StatusUnauthorized)
	return false
}

// contain keeps a panic to the request it concerns.
func (s *Server) contain(w http.ResponseWriter, r *http.Request) {
	p := recover()
	switch {
	case p == nil:
	case p == http.ErrAbortHandler:
		panic(p)
	default:
		s.o.Log.Error("a call panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
		plain(http.StatusInternalServerError, codes.Internal, "ERR_INTERNAL", "the runtime panicked while it worked on the call").write(w)
	}
}

// heardCall remembers of a call what is heard and measured. The nil heardCall remembers nothing.
type heardCall struct {
	http.ResponseWriter
	status, size int
	method, name string
	logging      Logging
	trace        *telemetry.Answer
	begun        bool
}

// route notes where the request goes, after middleware may have led it elsewhere.
func (c *heardCall) route(r *http.Request, name string) {
	if c != nil {
		c.method, c.name = r.Method+" "+r.URL.Path, name
	}
}

func (c *heardCall) WriteHeader(status int) {
	c.begin()
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *heardCall) Write(p []byte) (int, error) {
	c.begin()
	n, err := c.ResponseWriter.Write(p)
	c.size += n
	return n, err
}

// begin adds what every answer says before its head is sent.
func (c *heardCall) begin() {
	if !c.begun {
		c.begun = true
		answerTrace(c.Header(), c.trace)
	}
}

// Unwrap lets http.ResponseController flush.
func (c *heardCall) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// tell has a call that has ended measured and, if it is to be and has come to a route, heard.
func (s *Server) tell(r *http.Request, path string, began time.Time, c *heardCall) {
	took := time.Since(began)
	endTrace(r, path, c)
	s.o.Metrics.HTTPServed(r.Method, path, c.status, r.ContentLength, int64(c.size), took)
	if !c.logging.Calls || c.name == "" || c.logging.OmitHealthChecks && strings.HasPrefix(c.name, "Healthz") {
		return
	}
	method := c.method
	if c.logging.HideURLs {
		method = c.name
	}
	s.o.Log.Info("HTTP API Called", "method", method, "useragent", r.UserAgent(), "code", c.status, "size", c.size, "duration", took.Milliseconds())
}

// whole reads a body that is needed in one piece.
func (s *Server) whole(r *http.Request) (body []byte, err error) {
	share, _ := call.RoomOf(r.Context()).(*bodies.Share)
	from := io.Reader(r.Body)
	if s.o.MaxBody <= 0 {
		from = &limited{ReadCloser: r.Body, left: MostWhole}
	}
	err = share.Read(r.Context(), "read the body", func() (int, error) {
		var err error
		if 0 <= r.ContentLength && r.ContentLength <= wholeBody { // of larger ones only what has come takes memory
			body = make([]byte, r.ContentLength)
			_, err = io.ReadFull(from, body)
		} else {
			body, err = io.ReadAll(from)
		}
		return len(body), err
	})
	return body, err
}

// decode reads a body as JSON, of which what follows the first value does not count.
func (s *Server) decode(r *http.Request, into any) error {
	body, err := s.whole(r)
	if err != nil {
		return err
	}
	return inDaprsWords(json.NewDecoder(bytes.NewReader(body)).Decode(into))
}

// errTooLarge is the error of a body beyond the limit, in daprd's words.
var errTooLarge = errors.New("stream too large")

// limited fails when a body is larger than it may be.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n - 1, errTooLarge
	}
	return n, err
}

// queryMetadata are the query's keys that begin with `metadata.`, without it.
func queryMetadata(r *http.Request) map[string]string {
	metadata := map[string]string{}
	for key, values := range r.URL.Query() {
		if name, ok := strings.CutPrefix(key, "metadata."); ok {
			metadata[name] = values[0]
		}
	}
	return metadata
}

func answerEmpty(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }

// answerData answers with JSON unless the content type is set already.
func answerData(w http.ResponseWriter, status int, data []byte) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(data) // a client that went away needs no answer
}

func answerJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

// compact is a JSON value without white space; nothing at all is null.
func compact(value []byte) []byte {
	if len(value) == 0 {
		return []byte("null")
	}
	var b bytes.Buffer
	b.Grow(len(value))
	if json.Compact(&b, value) != nil {
		return value
	}
	return b.Bytes()
}

// asJSON is data as part of a JSON document: as it is, or as a string when it is no JSON.
func asJSON(data []byte) json.RawMessage {
	if json.Valid(data) {
		return data
	}
	text, _ := json.Marshal(string(data))
	return text
}

func toValidUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
