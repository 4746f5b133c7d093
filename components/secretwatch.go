package components

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/sidecast/sidecast/manifest"
)

// digest tells secrets apart without keeping them.
type digest [sha256.Size]byte

// digestOf is that of the secrets in resolved metadata.
func digestOf(m Manifest, md metadata) digest {
	h := sha256.New()
	for _, e := range m.Metadata {
		if e.Secret != nil {
			fmt.Fprintf(h, "%q %q\n", e.Key, md.values[manifest.FoldKey(e.Key)].text)
		}
	}
	return digest(h.Sum(nil))
}

// took remembers which secrets the backend is opened with.
func (s *slot) took(md metadata) {
	taken := digestOf(s.manifest, md)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = taken
}

// follow has a secret store tell of its changes. s.mu is held.
func (s *slot) follow() {
	store, ok := s.backend.(SecretWatcher)
	if !ok || !s.set.follows.Load() {
		return
	}
	s.unwatch = s.set.supervise(s.manifest.Name+"/secrets", func(ctx context.Context) error {
		return store.Watch(ctx, func() { s.set.secretsChanged(ctx, s.manifest.Name) })
	})
}

// FollowSecrets says from now on what Options.FollowSecrets has said; what has changed before is seen to as well. One
// caller at a time may say it.
func (s *Set) FollowSecrets(ctx context.Context, on bool) {
	if s.follows.Swap(on) == on {
		return
	}
	var begun []string
	var ending []*slot
	for _, slot := range s.current.Load().sorted() {
		slot.mu.Lock()
		switch {
		case !on && slot.unwatch != nil:
			ending = append(ending, slot)
		case on && slot.opened && !slot.retired && slot.unwatch == nil:
			if slot.follow(); slot.unwatch != nil {
				begun = append(begun, slot.manifest.Name)
			}
		}
		slot.mu.Unlock()
	}
	for _, slot := range ending {
		_ = slot.unwatch(ctx) // fails only when its context ends; set once before, and here alone after
		slot.mu.Lock()
		slot.unwatch = nil
		slot.mu.Unlock()
	}
	for _, store := range begun {
		s.secretsChanged(ctx, store)
	}
}

// SecretsVersion changes when a secret of any store may have changed: what was resolved before it did may be old.
func (s *Set) SecretsVersion() uint64 { return s.secrets.Load() }

// secretsChanged gives the components a new slot that took other secrets from store than it has now.
func (s *Set) secretsChanged(ctx context.Context, store string) {
	s.secrets.Add(1)
	stale := make(map[*slot]bool)
	for _, slot := range s.current.Load().sorted() {
		if slot.manifest.SecretStore == store && slot.outdated(ctx) {
			stale[slot] = true
		}
	}
	if len(stale) > 0 {
		s.renew(stale)
	}
}

// outdated says whether the slot's secrets have changed. One that is not open yet may have read the old ones, or wait for
// the new.
func (s *slot) outdated(ctx context.Context) bool {
	if !slices.ContainsFunc(s.manifest.Metadata, func(e Entry) bool { return e.Secret != nil }) {
		return false
	}
	s.mu.Lock()
	opened, idle, taken := s.opened, !s.opened && s.opening == nil && s.failure == nil, s.taken
	s.mu.Unlock()
	if !opened {
		return !idle
	}
	md, _, err := s.set.resolve(ctx, s.manifest, s.component)
	if err != nil {
		if ctx.Err() == nil {
			s.set.options.Log.Warn("secrets have changed and cannot be read: the component goes on with those it has",
				"component", s.manifest.Name, "error", err)
		}
		return false
	}
	return digestOf(s.manifest, md) != taken
}

// renew replaces slots as Reload does those whose manifest has changed, and with them those that take secrets from one of them.
func (s *Set) renew(stale map[*slot]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	old := s.current.Load().slots
	for stable := false; !stable; {
		stable = true
		for _, slot := range old {
			if store := slot.manifest.SecretStore; store != "" && stale[old[store]] && !stale[slot] {
				stale[slot], stable = true, false
			}
		}
	}
	next := &snapshot{slots: maps.Clone(old)}
	var changed []string
	for name, slot := range old {
		if stale[slot] {
			next.slots[name] = s.newSlot(slot.manifest, slot)
			changed = append(changed, name)
		}
	}
	s.current.Store(next) // before the old ones retire: who finds a slot retired looks here again
	for _, name := range changed {
		close(old[name].renewed)
		s.retire(old[name])
	}
	slices.Sort(changed)
	s.options.Log.Info("secrets of components changed", "components", changed)
}
