package catalogue_test

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/api/daprapi"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/tests/compat/cases"
	"github.com/sidecast/sidecast/tests/compat/catalogue"
	"github.com/sidecast/sidecast/tests/machine"
)

const (
	root = "../../.."
	page = root + "/docs/dapr-compatibility.md"
)

var update = flag.Bool("update", false, "write the page")

func TestMain(m *testing.M) { os.Exit(machine.Main(m)) }

func TestPage(t *testing.T) {
	want := catalogue.Page(keysOf)
	if *update {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the page is not what the catalogue says (%v): run make gen and commit", err)
	}
}

func keysOf(kind string) []string {
	var keys []string
	for _, c := range standard.All() {
		if d := c.Describe(); d.Title() == kind {
			for _, f := range d.Fields {
				keys = append(keys, f.Key)
			}
		}
	}
	return keys
}

func TestRowsAreWhole(t *testing.T) {
	for _, a := range catalogue.Areas() {
		seen := map[string]bool{}
		for _, r := range a.Rows {
			if len(r.Names) == 0 || r.Status != catalogue.NotYet && len(r.Tests) == 0 || r.Status == catalogue.Differs && r.Note == "" {
				t.Errorf("%s: a row lacks a name, its test or how it differs: %+v", a.Title, r)
			}
			if r.Status == catalogue.NotYet && len(r.Tests) > 0 {
				t.Errorf("%s: %v is not there, and has tests", a.Title, r.Names)
			}
			for _, name := range r.Names {
				if seen[name] {
					t.Errorf("%s: %s is there twice", a.Title, name)
				}
				seen[name] = true
			}
		}
	}
}

func TestNamedTestsExist(t *testing.T) {
	tests := map[string]map[string]*ast.FuncDecl{} // by alias and name
	for alias, folder := range catalogue.Packages {
		tests[alias] = testsIn(t, filepath.Join(root, folder))
	}
	named := map[string]bool{}
	for _, a := range catalogue.Areas() {
		for _, r := range a.Rows {
			for _, full := range r.Tests {
				alias, test, _ := strings.Cut(full, ".")
				named[alias] = true
				test, sub, _ := strings.Cut(test, "/")
				function := tests[alias][test]
				program := catalogue.SDKs()[alias+"."+test]
				if function == nil || sub != "" && !says(function, sub) && !slices.ContainsFunc(program, func(c cases.Case) bool { return c.Name == sub }) {
					t.Errorf("%s, %v: there is no test %s", a.Title, r.Names, full)
				}
			}
		}
	}
	for alias := range catalogue.Packages {
		if !named[alias] && alias != "actors" {
			t.Errorf("no row names a test of package %s", alias)
		}
	}
}

// What the programs of the SDKs show is on the page, as it is.
func TestWhatSDKsShowHasARow(t *testing.T) {
	for test, program := range catalogue.SDKs() {
		for _, c := range program {
			for _, shown := range c.Shows {
				found := false
				for _, a := range catalogue.Areas() {
					for _, r := range a.Rows {
						if slices.ContainsFunc(r.Names, func(name string) bool { return catalogue.Names(name, shown) }) {
							found = true
							if c.Absent != (r.Status == catalogue.NotYet) {
								t.Errorf("%s/%s shows of %s that it is absent: %t; its row says %s", test, c.Name, shown, c.Absent, r.Status)
							}
						}
					}
				}
				if !found {
					t.Errorf("%s/%s shows %s, which has no row", test, c.Name, shown)
				}
			}
		}
	}
}

// testsIn are the tests of the package in a folder.
func testsIn(t *testing.T, folder string) map[string]*ast.FuncDecl {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", folder, err)
	}
	found := map[string]*ast.FuncDecl{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && len(f.Type.Params.List) == 1 {
				found[f.Name.Name] = f
			}
		}
	}
	delete(found, "TestMain")
	return found
}

// says tells whether a function names its subtest: in one literal.
func says(f *ast.FuncDecl, sub string) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			text, err := strconv.Unquote(literal.Value)
			found = found || err == nil && text == sub
		}
		return !found
	})
	return found
}

// rows are those of an area by name.
func rows(t *testing.T, id string) map[string]catalogue.Row {
	t.Helper()
	found := map[string]catalogue.Row{}
	for _, a := range catalogue.Areas() {
		for _, r := range a.Rows {
			for _, name := range r.Names {
				if a.ID == id {
					found[name] = r
				}
			}
		}
	}
	if len(found) == 0 {
		t.Fatalf("there is no area %s", id)
	}
	return found
}

func TestEveryRPCHasARow(t *testing.T) {
	check := func(area, prefix string, services ...*grpc.ServiceDesc) {
		t.Helper()
		all := rows(t, area)
		for _, s := range services {
			service := ""
			if prefix != "" {
				service = s.ServiceName[strings.LastIndexByte(s.ServiceName, '.')+1:] + "/"
			}
			var methods []string
			for _, m := range s.Methods {
				methods = append(methods, m.MethodName)
			}
			for _, m := range s.Streams {
				methods = append(methods, m.StreamName)
			}
			for _, m := range methods {
				if len(all[service+m].Names) == 0 {
					t.Errorf("%s%s has no row", service, m)
				}
				delete(all, service+m)
			}
		}
		for name := range all {
			if !strings.Contains(name, " ") {
				t.Errorf("there is no RPC %s", name)
			}
		}
	}
	check("rpcs", "", &runtimev1.Dapr_ServiceDesc)
	check("callbacks", "AppCallback", &runtimev1.AppCallback_ServiceDesc, &runtimev1.AppCallbackHealthCheck_ServiceDesc, &runtimev1.AppCallbackAlpha_ServiceDesc)
}

// routed are the rows of routes by verb and shape.
func routed(t *testing.T) map[string]catalogue.Row {
	t.Helper()
	all := map[string]catalogue.Row{}
	for name, r := range rows(t, "routes") {
		words := strings.Fields(name)
		for _, verb := range words[:len(words)-1] {
			all[verb+" "+catalogue.Shape(words[len(words)-1])] = r
		}
	}
	return all
}

func TestEveryRouteHasARow(t *testing.T) {
	all, served := routed(t), map[string]bool{}
	for _, route := range daprapi.Routes() {
		for _, verb := range route.Methods {
			name := verb + " " + catalogue.Shape(route.Path)
			served[name] = true
			if r, ok := all[name]; !ok || (r.Status == catalogue.NotYet) != route.Absent {
				t.Errorf("%s %s has no row, or one that says %q", verb, route.Path, r.Status)
			}
		}
	}
	for name := range all {
		if !served[name] {
			t.Errorf("there is no route %s", name)
		}
	}
}

var flagLine = regexp.MustCompile(`(?m)^ +--([a-z0-9-]+)`)

func TestEveryFlagHasARow(t *testing.T) {
	all := rows(t, "flags")
	machine.Binary(t) // the patience with a command is not for this
	found := flagLine.FindAllStringSubmatch(machine.New(t).Must("daprd", "--help"), -1)
	for _, m := range found {
		if len(all["--"+m[1]].Names) == 0 && m[1] != "help" {
			t.Errorf("--%s has no row", m[1])
		}
		delete(all, "--"+m[1])
	}
	for name := range all {
		t.Errorf("there is no flag %s", name)
	}
}

// elsewhere are folders whose variables daprd does not read.
var elsewhere = []string{"sdk", "tests", "examples", "tools", "cmd/runtime/commands", "cmd/runtime/supervisor", "bin", ".git"}

// TestEveryVariableHasARow looks for what the program reads of its environment by name.
func TestEveryVariableHasARow(t *testing.T) {
	all, read := rows(t, "environment"), map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch rest, _ := filepath.Rel(root, path); {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(elsewhere, filepath.ToSlash(rest)):
			return filepath.SkipDir
		case d.IsDir():
			return variablesIn(path, read)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(read) < 10 {
		t.Errorf("only %v are read", read)
	}
	for name := range read {
		if len(all[name].Names) == 0 {
			t.Errorf("the variable %s has no row", name)
		}
		delete(all, name)
	}
	for name, r := range all {
		if !strings.Contains(name, " ") && r.Status != catalogue.NotYet {
			t.Errorf("nothing reads the variable %s", name)
		}
	}
}

// variablesIn notes the names, literal or constant, that the files of a folder look up.
func variablesIn(folder string, read map[string]bool) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return err
	}
	constants, asked := map[string]string{}, []ast.Expr{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if i < len(n.Values) {
						if literal, ok := n.Values[i].(*ast.BasicLit); ok {
							constants[name.Name], _ = strconv.Unquote(literal.Value)
						}
					}
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "Getenv" || f.Sel.Name == "LookupEnv") && len(n.Args) == 1 {
					asked = append(asked, n.Args[0])
				}
			}
			return true
		})
	}
	for _, a := range asked {
		switch a := a.(type) {
		case *ast.BasicLit:
			name, _ := strconv.Unquote(a.Value)
			read[name] = true
		case *ast.Ident:
			if name := constants[a.Name]; name != "" {
				read[name] = true
			}
		}
	}
	return nil
}

func TestEveryComponentTypeHasARow(t *testing.T) {
	all := rows(t, "types")
	if _, ok := all[catalogue.Rest]; !ok {
		t.Errorf("%s have no row", catalogue.Rest)
	}
	delete(all, catalogue.Rest)
	for _, c := range standard.All() {
		title := c.Describe().Title()
		if c.NotLinked() != "" {
			if _, ok := all[title]; ok {
				t.Errorf("%s has a row of its own, and is not there", title)
			}
			continue
		}
		if r, ok := all[title]; !ok || r.Status == catalogue.NotYet {
			t.Errorf("%s has no row, or one that says that it is not there", title)
		}
		delete(all, title)
	}
	for name, r := range all {
		if r.Status != catalogue.NotYet {
			t.Errorf("there is no type %s", name)
		}
	}
}

// source is a file, or all files of a pattern, of the daprd whose protocol is compiled in.
func source(t *testing.T, pattern string) string {
	t.Helper()
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/dapr/dapr").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(folder)), pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("daprd has no %s: %v", pattern, err)
	}
	var all strings.Builder
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

var (
	daprdFlag    = regexp.MustCompile(`fs\.\w+Var\([^,]+, "([a-z0-9-]+)"`)
	daprdRoute   = regexp.MustCompile(`Methods: +\[\]string\{([^}]+)\},\s+Route: +"([^"]+)",\s+Version: +(\w+)`)
	daprdVersion = regexp.MustCompile(`(apiVersionV\w+) += "([^"]+)"`)
	jsonKey      = regexp.MustCompile("json:\"([a-zA-Z0-9]+)")
)

// What daprd's own source has is on the page.
func TestNothingOfDaprdIsLeftOut(t *testing.T) {
	flags := rows(t, "flags")
	found := daprdFlag.FindAllStringSubmatch(source(t, "cmd/daprd/options/options.go"), -1)
	for _, m := range found {
		if len(flags["--"+m[1]].Names) == 0 {
			t.Errorf("daprd's flag --%s has no row", m[1])
		}
	}
	api := source(t, "pkg/api/http/*.go")
	version := map[string]string{}
	for _, m := range daprdVersion.FindAllStringSubmatch(api, -1) {
		version[m[1]] = m[2]
	}
	all, served := routed(t), daprdRoute.FindAllStringSubmatch(api, -1)
	for _, m := range served {
		for verb := range strings.SplitSeq(m[1], ",") {
			verb = strings.ToUpper(verb[strings.Index(verb, "Method")+len("Method"):])
			name := verb + " " + catalogue.Shape("/"+version[m[3]]+"/"+m[2])
			if len(all[name].Names) == 0 {
				t.Errorf("daprd's route %s has no row", name)
			}
		}
	}
	if len(found) < 50 || len(served) < 60 {
		t.Errorf("daprd has %d flags and %d routes", len(found), len(served))
	}
}

// spec are the types between the start of a resource's and its list's.
var spec = regexp.MustCompile(`(?s)type \w+Spec struct.*?\ntype \w+List struct`)

// Each key of daprd's resources is the last part of a key on the page; what is nested in a section that is not there yet is
// left out with it.
func TestEveryKeyHasARow(t *testing.T) {
	for area, file := range map[string]string{
		"component": "components/v1alpha1", "subscription": "subscriptions/v*", "resiliency": "resiliency/v1alpha1", "configuration": "configuration/v1alpha1", "httpendpoint": "httpEndpoint/v1alpha1",
	} {
		known := map[string]bool{}
		for name := range rows(t, area) {
			for part := range strings.SplitSeq(name, ".") {
				known[part] = true
			}
		}
		text := strings.Join(spec.FindAllString(source(t, "pkg/apis/"+file+"/types.go"), -1), "\n")
		if area == "configuration" { // its sections alone
			text, _, _ = strings.Cut(text, "\n}")
		}
		keys := jsonKey.FindAllStringSubmatch(text, -1)
		if len(keys) == 0 {
			t.Errorf("%s has no keys", file)
		}
		for _, m := range keys {
			if !known[m[1]] && m[1] != "items" && m[1] != "metadata" {
				t.Errorf("%s: the key %s has no row", area, m[1])
			}
		}
	}
}
