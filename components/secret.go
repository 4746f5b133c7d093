package components

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
)

// resolve replaces the references of a manifest by what they refer to, and the templates in its values. It returns all
// that must not be shown.
func (s *Set) resolve(ctx context.Context, m Manifest, c Component) (metadata, scrubber, error) {
	md := m.metadata()
	secret := c.schema.secrets()
	var hidden []string
	for _, e := range m.Metadata {
		v := md.values[manifest.FoldKey(e.Key)]
		var err error
		switch {
		case e.Secret != nil:
			v.text, err = s.secret(ctx, m, e)
		case e.Env != "":
			v.text, err = s.env(m, e, "envRef", e.Env)
		default:
			v.text = s.options.Host.expand(v.text)
		}
		if err != nil {
			return metadata{}, scrubber{}, err
		}
		v.hidden, v.pending = v.pending, false
		if e.Secret != nil || secret(e.Key) || e.Env != "" && len(v.text) >= shortestPassword {
			hidden = append(hidden, v.text)
		} else {
			hidden = append(hidden, passwords(v.text)...)
		}
		md.values[manifest.FoldKey(e.Key)] = v
	}
	return md, newScrubber(hidden), nil
}

// secret looks a secretKeyRef up, in the manifest's secret store or the environment.
func (s *Set) secret(ctx context.Context, m Manifest, e Entry) (string, error) {
	if m.SecretStore == "" {
		return s.env(m, e, "secretKeyRef", e.Secret.Name)
	}
	op := fmt.Sprintf("%s:%d: %s", m.Source.File, e.Line, e.path())
	use, err := s.Secrets(ctx, m.SecretStore)
	if err != nil {
		return "", fault.E(op, fault.KindOf(err), fault.ReasonOf(err), err)
	}
	defer use.Release()
	var metadata map[string]string
	if m.Namespace != "" { // Kubernetes keeps secrets by namespace
		metadata = map[string]string{"namespace": m.Namespace}
	}
	parts, err := use.Backend.Secret(ctx, e.Secret.Name, metadata)
	if err != nil {
		return "", fault.E(op, fault.KindOf(err), fault.ReasonOf(err), fmt.Errorf("secret store %s: %w", m.SecretStore, err))
	}
	text, ok := parts[e.Secret.Key]
	if !ok {
		return "", fault.New(op, fault.SecretNotFound, "secret %q of secret store %s has no key %q", e.Secret.Name, m.SecretStore, e.Secret.Key)
	}
	return text, nil
}

// env looks an environment variable up.
func (s *Set) env(m Manifest, e Entry, kind, name string) (string, error) {
	if OwnVariable(name) {
		return "", fault.New(fmt.Sprintf("%s:%d: %s", m.Source.File, e.Line, e.path()), fault.SecretNotFound,
			"the environment variable %s that its %s names configures the sidecar and is not given out", name, kind)
	}
	text, ok := s.options.LookupEnv(name)
	if !ok {
		return "", fault.New(fmt.Sprintf("%s:%d: %s", m.Source.File, e.Line, e.path()), fault.SecretNotFound,
			"the environment variable %s that its %s names is not set", name, kind)
	}
	return text, nil
}

// OwnVariable says whether an environment variable is the sidecar's own, an API token for one: it is given to nobody.
func OwnVariable(name string) bool {
	name = strings.ToUpper(name)
	return name == "APP_API_TOKEN" || strings.HasPrefix(name, "DAPR_") || strings.HasPrefix(name, "SIDECAST_")
}

// expand fills in the templates that Dapr knows: {appID}, {namespace}, {podName} and {uuid}. As with Dapr, {namespace} names
// the app, too: what is made with it, a group of consumers for one, is each app's own.
func (h Host) expand(text string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	text = strings.NewReplacer("{appID}", h.AppID, "{namespace}", h.Namespace+"."+h.AppID, "{podName}", h.Instance).Replace(text)
	for strings.Contains(text, "{uuid}") {
		text = strings.Replace(text, "{uuid}", uuid.NewString(), 1)
	}
	return text
}

// named says whether key is a name of the field.
func (f Field) named(key string) bool {
	return slices.ContainsFunc(append([]string{f.Key}, f.Aliases...), func(name string) bool { return manifest.FoldKey(name) == manifest.FoldKey(key) })
}

// secrets tells the keys whose values are never shown.
func (s schema) secrets() func(key string) bool {
	fields := s.all()
	return func(key string) bool {
		return slices.ContainsFunc(fields, func(f Field) bool { return f.Secret && f.named(key) })
	}
}

const redacted = "(secret)"

// shortestPassword keeps an environment variable that holds a mere "0" from being cut out of every number in a message.
const shortestPassword = 4

// scrubber takes secrets out of texts that backends write. The zero scrubber has none.
type scrubber struct{ replacer *strings.Replacer }

func newScrubber(secrets []string) scrubber {
	var pairs []string
	for _, secret := range slices.Clone(secrets) {
		secrets = append(secrets, passwords(secret)...)
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // what contains another goes first
	for _, secret := range secrets {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			if form != "" && !slices.Contains(pairs, form) {
				pairs = append(pairs, form, redacted)
			}
		}
	}
	if pairs == nil {
		return scrubber{}
	}
	return scrubber{strings.NewReplacer(pairs...)}
}

// veil is text without the passwords in it.
func veil(text string) string { return newScrubber(passwords(text)).scrub(text) }

// inURL and inList find the password of a URL's user, up to the last @ and to the first one, and that of a list of
// key=value. What is found too much is in no text.
var (
	inURL  = regexp.MustCompile(`://[^:@/\s]*:((\S*?)@\S*@|\S*?@)`)
	inList = regexp.MustCompile(`(?i)\bpassword\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))`)
)

// passwords are those that a connection string holds: a driver may show one without the rest.
func passwords(text string) []string {
	var found []string
	for _, match := range append(inURL.FindAllStringSubmatch(text, -1), inList.FindAllStringSubmatch(text, -1)...) {
		for _, part := range match[1:] {
			part = strings.TrimSuffix(part, "@")
			if plain, err := url.PathUnescape(part); err == nil && plain != part && len(plain) >= shortestPassword {
				found = append(found, plain)
			}
			if len(part) >= shortestPassword {
				found = append(found, part)
			}
		}
	}
	return found
}

func (s scrubber) scrub(text string) string {
	if s.replacer == nil {
		return text
	}
	return s.replacer.Replace(text)
}

// scrubError is err when it shows no secret. Otherwise it is a fault of the same kind and reason with the text scrubbed,
// and without the cause, whose own text would show it.
func (s scrubber) scrubError(err error) error {
	text := err.Error()
	clean := s.scrub(text)
	if clean == text {
		return err
	}
	reason := fault.ReasonOf(err)
	if reason == "" {
		reason = fault.BackendFailed
	}
	return fault.E("", fault.KindOf(err), reason, fmt.Errorf("%s", clean)).After(fault.RetryAfter(err))
}

// logger is log with the secrets taken out of all it writes.
func (s scrubber) logger(log *slog.Logger) *slog.Logger {
	if s.replacer == nil {
		return log
	}
	return slog.New(scrubbingHandler{log.Handler(), s})
}

// scrubbingHandler scrubs messages and attributes on their way to another handler.
type scrubbingHandler struct {
	slog.Handler
	secrets scrubber
}

func (h scrubbingHandler) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, h.secrets.scrub(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.attr(a))
		return true
	})
	return h.Handler.Handle(ctx, clean)
}

func (h scrubbingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = h.attr(a)
	}
	return scrubbingHandler{h.Handler.WithAttrs(clean), h.secrets}
}

func (h scrubbingHandler) WithGroup(name string) slog.Handler {
	return scrubbingHandler{h.Handler.WithGroup(name), h.secrets}
}

func (h scrubbingHandler) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		group := v.Group()
		clean := make([]slog.Attr, len(group))
		for i, member := range group {
			clean[i] = h.attr(member)
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(clean...)}
	case slog.KindString:
		return slog.String(a.Key, h.secrets.scrub(v.String()))
	case slog.KindAny:
		text := fmt.Sprintf("%+v", v.Any())
		if clean := h.secrets.scrub(text); clean != text {
			return slog.String(a.Key, clean)
		}
	}
	return slog.Attr{Key: a.Key, Value: v}
}
