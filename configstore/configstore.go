// Package configstore is the contract between the Configuration block and its backends: settings that an app reads by key
// and is told of when they change. What is true for every backend (lanes, what has changed since the app was told, the end
// of a subscription) is in the block; what every backend promises is checked by configstore/configtest.
//
//	items, err := store.Get(ctx, []string{"discount"}, nil)
//	err = store.Watch(ctx, []string{"discount"}, nil, func(keys []string) { … })
package configstore

import "context"

// Store reads settings. All methods may be called concurrently.
type Store interface {
	// Get returns the items of those keys that exist, by key; of all there are when keys is empty. Metadata is what the caller
	// says beside; a backend uses what it knows of it.
	Get(ctx context.Context, keys []string, metadata map[string]string) (map[string]Item, error)
	// Watch calls changed with keys whose items may be others than before; nil stands for all that are watched, which are all
	// there are when keys is empty. It does so with nil once it learns of every change from then on, and soon after each
	// change. Several changes may be told as one, and keys that have not changed, or are not watched, too. changed returns at
	// once and keeps nothing. Watch returns when ctx ends, with the error of ctx, or when the backend cannot go on: whoever
	// watches again misses nothing by reading all at the first call.
	Watch(ctx context.Context, keys []string, metadata map[string]string, changed func(keys []string)) error
	// Close returns when nothing of the store is running any more. Methods called later fail with fault.Unavailable.
	Close(ctx context.Context) error
}

// Item is a setting.
type Item struct {
	Value string
	// Version tells the value from older ones where the backend has such; "" where it has none.
	Version string
	// Metadata is what the backend keeps beside the value.
	Metadata map[string]string
}
