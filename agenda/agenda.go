// Package agenda lines things up by when they are due, and finds each of them again: what is due first is at hand at once, and
// a thing is added, moved or taken out in the logarithm of how many there are.
//
//	type item struct {
//		expires time.Time
//		place   agenda.Place
//	}
//	a := agenda.New(func(a, b *item) bool { return a.expires.Before(b.expires) }, func(i *item) *agenda.Place { return &i.place })
//	a.Add(i)
//	for a.Len() > 0 && !now.Before(a.First().expires) {
//		a.Remove(a.First())
//	}
//
// It reads no clock, starts nothing and is not safe for concurrent use: who owns it guards it.
package agenda

import "container/heap"

// Place is where an agenda keeps a thing; the zero Place is of one that is in none. It belongs to the agenda.
type Place struct{ n int } // index + 1

// Agenda holds things that know their place in it. T is a pointer.
type Agenda[T any] struct{ heap order[T] }

// New makes an empty agenda. Before says of two things whether the first is due earlier, and place where a thing keeps its place.
func New[T any](before func(a, b T) bool, place func(T) *Place) *Agenda[T] {
	return &Agenda[T]{order[T]{before: before, place: place}}
}

// Len is how many things there are.
func (a *Agenda[T]) Len() int { return len(a.heap.all) }

// First is what is due first; the zero T when there is nothing.
func (a *Agenda[T]) First() T {
	if len(a.heap.all) == 0 {
		var none T
		return none
	}
	return a.heap.all[0]
}

// Add takes x in, which is in no agenda.
func (a *Agenda[T]) Add(x T) { heap.Push(&a.heap, x) }

// Move finds x, whose time has changed, its new place. It does nothing for what is not in the agenda.
func (a *Agenda[T]) Move(x T) {
	if n := a.heap.place(x).n; n > 0 {
		heap.Fix(&a.heap, n-1)
	}
}

// Remove takes x out. It does nothing for what is not in the agenda.
func (a *Agenda[T]) Remove(x T) {
	if n := a.heap.place(x).n; n > 0 {
		heap.Remove(&a.heap, n-1)
	}
}

// order is the heap, as container/heap has it.
type order[T any] struct {
	before func(a, b T) bool
	place  func(T) *Place
	all    []T
}

func (o *order[T]) Len() int           { return len(o.all) }
func (o *order[T]) Less(i, j int) bool { return o.before(o.all[i], o.all[j]) }
func (o *order[T]) Swap(i, j int) {
	o.all[i], o.all[j] = o.all[j], o.all[i]
	o.place(o.all[i]).n, o.place(o.all[j]).n = i+1, j+1
}

func (o *order[T]) Push(x any) {
	o.all = append(o.all, x.(T))
	o.place(x.(T)).n = len(o.all)
}

func (o *order[T]) Pop() any {
	last := len(o.all) - 1
	x := o.all[last]
	clear(o.all[last:])
	o.all = o.all[:last]
	o.place(x).n = 0
	return x
}
