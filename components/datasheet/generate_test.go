package datasheet

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"weak"

	"github.com/goccy/go-yaml"
)

var update = flag.Bool("update", false, "write sheets.jsonl.gz and types.txt")

const library = "github.com/dapr/components-contrib"

// What is embedded is what daprd registers, and what the library says of it.
func TestSheetsAreTheLibrarys(t *testing.T) {
	found := registered(t, moduleDir(t, "github.com/dapr/dapr"))
	if len(found) < 100 {
		t.Fatalf("daprd registers %d components", len(found))
	}
	root := moduleDir(t, library)
	sheets, names := &bytes.Buffer{}, []string{}
	for _, c := range found {
		s := Sheet{Names: c.names, Input: c.input, Output: c.output}
		if c.pkg != "" {
			describe(t, &s, filepath.Join(root, strings.TrimPrefix(c.pkg, library), "metadata.yaml"))
		}
		line, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		sheets.Write(append(line, '\n'))
		for _, n := range c.names {
			names = append(names, n.Type+" "+n.Version+"\n")
		}
	}
	slices.Sort(names)
	if *update {
		write(t, sheets.Bytes(), strings.Join(names, ""))
		return
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if have, err := io.ReadAll(unpacked); err != nil || !bytes.Equal(have, sheets.Bytes()) || types != strings.Join(names, "") {
		t.Error("the sheets are not those of the modules that go.mod names: run make gen")
	}
}

func write(t *testing.T, sheets []byte, names string) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(sheets)
	}
	if err := errors.Join(err, w.Close(), os.WriteFile("sheets.jsonl.gz", b.Bytes(), 0o644), os.WriteFile("types.txt", []byte(names), 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes of text are %d bytes packed", len(sheets), b.Len())
}

// moduleDir is where the module cache has a module.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// component is what daprd registers of one package: pkg is "" where it is daprd's own.
type component struct {
	pkg           string
	names         []Name
	input, output bool
}

// registered reads the calls of daprd's sources that register components.
func registered(t *testing.T, dir string) []*component {
	files, err := filepath.Glob(filepath.Join(dir, "cmd/daprd/components/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*component
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "state_spiffeprobe.go") { // the latter is for daprd's tests
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		imports := map[string]string{}
		for _, i := range file.Imports {
			text, _ := strconv.Unquote(i.Path.Value)
			alias := path.Base(text)
			if i.Name != nil {
				alias = i.Name.Name
			}
			imports[alias] = text
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				all = register(all, call, imports)
			}
			return true
		})
	}
	for _, c := range all {
		slices.SortFunc(c.names, func(a, b Name) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Version, b.Version)) })
		c.names = slices.Compact(c.names)
	}
	slices.SortFunc(all, func(a, b *component) int {
		return cmp.Or(cmp.Compare(a.names[0].Type, b.names[0].Type), cmp.Compare(a.names[0].Version, b.names[0].Version))
	})
	return all
}

// register adds what one call registers: `stateLoader.DefaultRegistry.RegisterComponent(mysql.New, "mysql")`, or the same with
// versions.
func register(all []*component, call *ast.CallExpr, imports map[string]string) []*component {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !strings.HasPrefix(method.Sel.Name, "Register") {
		return all
	}
	registry, ok := method.X.(*ast.SelectorExpr)
	if !ok || registry.Sel.Name != "DefaultRegistry" {
		return all
	}
	block, ok := strings.CutPrefix(imports[registry.X.(*ast.Ident).Name], "github.com/dapr/dapr/pkg/components/")
	if !ok || block == "nameresolution" {
		return all // the fabric finds apps
	}
	add := func(pkg, name, version string) {
		n := Name{strings.ReplaceAll(block, "/", ".") + "." + name, version}
		at := slices.IndexFunc(all, func(c *component) bool { return c.pkg == pkg && c.pkg != "" || slices.Contains(c.names, n) })
		if at < 0 {
			at, all = len(all), append(all, &component{pkg: pkg})
		}
		all[at].names = append(all[at].names, n)
		all[at].input = all[at].input || method.Sel.Name == "RegisterInputBinding"
		all[at].output = all[at].output || method.Sel.Name == "RegisterOutputBinding"
	}
	if method.Sel.Name == "RegisterComponentWithVersions" {
		name := text(call.Args[0])
		ast.Inspect(call.Args[1], func(n ast.Node) bool {
			if made, ok := n.(*ast.CompositeLit); ok {
				var pkg, version string
				for _, e := range made.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok && kv.Key.(*ast.Ident).Name == "Version" {
						version = text(kv.Value)
					} else if ok && kv.Key.(*ast.Ident).Name == "Constructor" {
						pkg = maker(kv.Value, imports)
					}
				}
				if version != "" {
					add(pkg, name, version)
				}
			}
			return true
		})
		return all
	}
	for _, name := range call.Args[1:] {
		add(maker(call.Args[0], imports), text(name), "v1")
	}
	return all
}

func text(e ast.Expr) string {
	s, _ := strconv.Unquote(e.(*ast.BasicLit).Value)
	return s
}

// maker is the package whose constructor e calls or names: not that of the interface that it returns.
func maker(e ast.Expr, imports map[string]string) (found string) {
	ast.Inspect(e, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && strings.HasPrefix(imports[x.Name], library) && strings.HasPrefix(s.Sel.Name, "New") {
				found = imports[x.Name]
			}
		}
		return true
	})
	return found
}

// file is a metadata.yaml of the library.
type file struct {
	Title, Description, Status string
	URLs                       []Link `yaml:"urls"`
	Binding                    struct {
		Operations []struct{ Name, Description string }
	}
	BuiltinAuthenticationProfiles []struct {
		Name     string
		Metadata []metadata
	} `yaml:"builtinAuthenticationProfiles"`
	AuthenticationProfiles []profile `yaml:"authenticationProfiles"`
	Metadata               []metadata
}

type profile struct {
	Title, Description string
	Metadata           []metadata
}

type metadata struct {
	Name, Description, Type, Default, Example string
	Required, Sensitive                       bool
	AllowedValues                             []string `yaml:"allowedValues"`
	Binding                                   *struct{ Input, Output bool }
	URL                                       *Link `yaml:"url"`
}

// describe adds what the file says.
func describe(t *testing.T, s *Sheet, name string) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var f file
	if err == nil {
		err = yaml.Unmarshal(data, &f)
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	s.Title, s.Status, s.Doc, s.Links = plain(f.Title), f.Status, plain(f.Description), f.URLs
	for _, o := range f.Binding.Operations {
		s.Operations = append(s.Operations, Operation{o.Name, plain(o.Description)})
	}
	for _, m := range f.Metadata {
		s.add(m, m.Required)
	}
	for _, b := range f.BuiltinAuthenticationProfiles {
		if builtin[b.Name] == nil {
			t.Errorf("%s: there is no profile %s", name, b.Name)
		}
		for _, p := range builtin[b.Name] {
			p.Metadata = slices.Concat(b.Metadata, p.Metadata)
			s.profile(p)
		}
	}
	for _, p := range f.AuthenticationProfiles {
		s.profile(p)
	}
}

func (s *Sheet) profile(p profile) {
	added := Profile{Title: plain(p.Title), Doc: plain(p.Description)}
	for _, m := range p.Metadata {
		s.add(m, false)
		if m.Required {
			added.Needed = append(added.Needed, m.Name)
		} else {
			added.Keys = append(added.Keys, m.Name)
		}
	}
	s.Profiles = append(s.Profiles, added)
}

// add adds a key that is not there yet. Where two profiles describe one, what is secret in one is so in all, and what is not
// the same is dropped.
func (s *Sheet) add(m metadata, required bool) {
	k := Key{Name: m.Name, Type: m.Type, Doc: plain(m.Description), Required: required && m.Default == "", Secret: m.Sensitive,
		Default: unquoted(m.Default), Example: unquoted(m.Example), OneOf: m.AllowedValues}
	if k.Type == "string" {
		k.Type = ""
	}
	if b := m.Binding; b != nil && b.Input != b.Output {
		k.Only = map[bool]string{true: "input", false: "output"}[b.Input]
	}
	if m.URL != nil {
		k.URL = m.URL.URL
	}
	at := slices.IndexFunc(s.Keys, func(have Key) bool { return strings.EqualFold(have.Name, k.Name) })
	if at < 0 {
		s.Keys = append(s.Keys, k)
		return
	}
	have := &s.Keys[at]
	have.Secret = have.Secret || k.Secret
	if have.Type != k.Type {
		have.Type = ""
	}
	if !slices.Equal(have.OneOf, k.OneOf) {
		have.OneOf = nil
	}
	if have.Only != k.Only {
		have.Only = ""
	}
}

// plain is text in one line.
func plain(s string) string { return strings.Join(strings.Fields(s), " ") }

// unquoted is a value without the quotes that the files put around some texts.
func unquoted(s string) string {
	s = plain(s)
	if inner, err := strconv.Unquote(s); err == nil && s[0] == '"' {
		return plain(inner)
	}
	return s
}

// builtin are the ways to sign in that several files refer to by a name. The library's repository has them in a file that is
// not part of its module: the keys and what is needed are its, the words are ours.
var builtin = map[string][]profile{
	"aws": {
		{"AWS: access key", "With the id and the secret of an access key.", []metadata{
			awsRegion, {Name: "awsRegion", Description: "Older name of region."}, {Name: "accessKey", Description: "Id of the access key.", Sensitive: true},
			{Name: "secretKey", Description: "Secret of the access key.", Sensitive: true},
			{Name: "sessionToken", Description: "Token of a session, where the key is a temporary one.", Sensitive: true},
		}},
		{"AWS: assume a role", "With an IAM role; of Kafka and PostgreSQL alone.", []metadata{
			needed(awsRegion), {Name: "assumeRoleArn", Description: "ARN of the role to take."},
			{Name: "sessionName", Description: "Name of the session in that role.", Default: "DaprDefaultSession"},
		}},
		{"AWS: environment", "With AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the sidecar's environment.", nil},
		{"AWS: IAM Roles Anywhere", "With the X.509 certificate of the sidecar.", []metadata{
			{Name: "trustAnchorArn", Description: "ARN of the trust anchor.", Required: true}, {Name: "trustProfileArn", Description: "ARN of the profile.", Required: true},
			{Name: "assumeRoleArn", Description: "ARN of the role to take.", Required: true},
		}},
	},
	"azuread": {
		{"Microsoft Entra ID: managed identity", "With the identity of the machine or the pod.", []metadata{
			{Name: "azureClientId", Description: "The application, or which of several managed identities."}, azureEnvironment,
		}},
		{"Microsoft Entra ID: client credentials", "With the secret of an application.", []metadata{
			azureTenant, needed(azureClient), {Name: "azureClientSecret", Description: "Secret of the application.", Required: true, Sensitive: true}, azureEnvironment,
		}},
		{"Microsoft Entra ID: client certificate", "With a certificate of an application, given as text or as a file.", []metadata{
			azureTenant, needed(azureClient), {Name: "azureCertificate", Description: "Certificate with its private key, in PEM or PKCS #12.", Sensitive: true},
			{Name: "azureCertificateFile", Description: "File that holds that certificate."},
			{Name: "azureCertificatePassword", Description: "Password of that certificate.", Sensitive: true}, azureEnvironment,
		}},
	},
	"gcp": {
		{"Google Cloud: service account", "With the key of a service account: its fields, each under a key of its own.", []metadata{
			{Name: "privateKeyID", Description: "The field private_key_id.", Required: true, Sensitive: true},
			{Name: "privateKey", Description: "The field private_key, in PEM.", Required: true, Sensitive: true},
			{Name: "type", Description: "The field type.", Example: "service_account"},
			{Name: "projectID", Description: "The project.", Required: true}, {Name: "clientEmail", Description: "The field client_email.", Required: true},
			{Name: "clientID", Description: "The field client_id.", Required: true}, {Name: "authURI", Description: "The field auth_uri."},
			{Name: "tokenURI", Description: "The field token_uri."}, {Name: "authProviderX509CertURL", Description: "The field auth_provider_x509_cert_url."},
			{Name: "clientX509CertURL", Description: "The field client_x509_cert_url."},
		}},
	},
}

var (
	awsRegion        = metadata{Name: "region", Description: "Region of AWS.", Example: "us-east-1"}
	azureTenant      = metadata{Name: "azureTenantId", Description: "Tenant of the application.", Required: true}
	azureClient      = metadata{Name: "azureClientId", Description: "The application, or which of several managed identities."}
	azureEnvironment = metadata{Name: "azureEnvironment", Description: "Which of Azure's clouds.", Default: "AzurePublicCloud",
		AllowedValues: []string{"AzurePublicCloud", "AzureChinaCloud", "AzureUSGovernmentCloud"}}
)

func needed(m metadata) metadata {
	m.Required = true
	return m
}

func TestASheetIsFound(t *testing.T) {
	s, ok := Of("bindings.aws.s3", "")
	if !ok || s.Title != "AWS S3" || !s.Output || s.Input || len(s.Operations) < 5 || len(s.Links) == 0 || len(s.Profiles) != 4 {
		t.Fatalf("%v %+v", ok, s)
	}
	key := func(name string) Key {
		return s.Keys[slices.IndexFunc(s.Keys, func(k Key) bool { return k.Name == name })]
	}
	if b := key("bucket"); !b.Required || b.Example != "bucket" || b.Doc == "" {
		t.Errorf("%+v", b)
	}
	if k := key("secretKey"); !k.Secret || k.Required {
		t.Errorf("%+v", k)
	}
	if k := key("decodeBase64"); k.Type != "bool" || k.Default != "false" {
		t.Errorf("%+v", k)
	}
	for name, want := range map[Name]bool{
		{"state.yugabytedb", "v2"}: true, {"state.yugabytedb", "v1"}: false, {"state.cockroachdb", "v1"}: true, {"state.sqlserver", "v2"}: true,
		{"middleware.http.uppercase", "v1"}: true, {"crypto.dapr.jwks", "v1"}: true, {"bindings", "v1"}: false, {"state.nothing", "v1"}: false,
	} {
		if _, ok := Of(name.Type, name.Version); ok != want {
			t.Errorf("%v: %v", name, ok)
		}
	}
	if _, ok := Of("secretstores.aws.secretmanager", "v1"); !ok {
		t.Error("a component whose file gives it another name is not found")
	}
}

func TestEveryNameHasASheet(t *testing.T) {
	count, sheets := 0, 0
	for range All() {
		sheets++
	}
	for n := range Names() {
		count++
		if s, ok := Of(n.Type, n.Version); !ok || s.Title == "" && n.Type != "middleware.http.uppercase" {
			t.Errorf("%v has no title: %v", n, ok)
		}
	}
	if count < sheets || sheets < 100 {
		t.Errorf("%d names of %d sheets", count, sheets)
	}
}

func BenchmarkOf(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		last.book = weak.Pointer[book]{}
		if _, ok := Of("state.zookeeper", ""); !ok {
			b.Fatal("not found")
		}
	}
}
