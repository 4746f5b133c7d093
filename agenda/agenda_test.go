package agenda

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type thing struct {
	due   int
	place Place
}

// What is done to an agenda in any order, the first of it is the earliest of a plain list.
func TestFirstIsTheEarliest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(func(a, b *thing) bool { return a.due < b.due }, func(x *thing) *Place { return &x.place })
		var in, out []*thing
		pick := func(from []*thing) (int, *thing) {
			if len(from) == 0 {
				t.Skip("nothing to pick")
			}
			i := rapid.IntRange(0, len(from)-1).Draw(t, "which")
			return i, from[i]
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				x := &thing{due: rapid.IntRange(0, 20).Draw(t, "due")}
				a.Add(x)
				in = append(in, x)
			},
			"move": func(t *rapid.T) {
				_, x := pick(in)
				x.due = rapid.IntRange(0, 20).Draw(t, "due")
				a.Move(x)
			},
			"remove": func(*rapid.T) {
				i, x := pick(in)
				a.Remove(x)
				in, out = slices.Delete(in, i, i+1), append(out, x)
			},
			"leave alone what is gone": func(*rapid.T) {
				_, x := pick(out)
				a.Move(x)
				a.Remove(x)
			},
			"": func(t *rapid.T) {
				if a.Len() != len(in) {
					t.Fatalf("%d things, want %d", a.Len(), len(in))
				}
				switch first := a.First(); {
				case len(in) == 0 && first != nil:
					t.Fatalf("nothing is in it, but %v", first)
				case len(in) > 0 && (!slices.Contains(in, first) || first.due != slices.MinFunc(in, func(a, b *thing) int { return a.due - b.due }).due):
					t.Fatalf("%v is not the first of %v", first, in)
				}
				for _, x := range out {
					if x.place != (Place{}) {
						t.Fatalf("%v is gone and has a place", x)
					}
				}
			},
		})
	})
}
