package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidecast/sidecast/configstore/natsconfig"
	"github.com/sidecast/sidecast/fault"
)

// settingFlags are those flags of a sidecar that say which fabric a bucket is on, and whose.
var settingFlags = []string{
	"namespace", "data-dir", "fabric", "fabric-creds", "fabric-nkey", "fabric-ca", "fabric-cert", "fabric-key", "fabric-replicas",
}

// settings are the settings of one component of type configuration.jetstream.
type settings struct {
	config
	store, bucket string
}

func newConfig() *cobra.Command {
	s := &settings{}
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Read and write the settings that apps follow",
		Long: `Reads and writes the items of a configuration store of type configuration.jetstream: a key-value bucket on
the fabric. Sidecars that watch an item are told of the change at once. The bucket is an ordinary one, which
"nats kv" knows too; --bucket names it where a component's manifest does.

Keys are letters, digits and -_=./; values are text.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	flags.StringVarP(&s.store, "store", "s", "configstore", "name of the component")
	flags.StringVar(&s.bucket, "bucket", "", "bucket that the component's manifest names, if it does")
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.config.flags(all)
	for _, name := range settingFlags {
		flags.AddFlag(all.Lookup(name))
	}
	cmd.AddCommand(s.get(), s.set(), s.delete())
	return cmd
}

// fromEnvironment adds what flags do not say.
func (s *settings) fromEnvironment() {
	if s.Fabric != "" {
		return
	}
	s.Fabric = os.Getenv("SIDECAST_FABRIC")
	if s.NKey == "" {
		s.Credentials = cmp.Or(s.Credentials, os.Getenv("SIDECAST_FABRIC_CREDS"))
	}
}

// reaching is a way to a bucket.
type reaching func(ctx context.Context, conn *nats.Conn, bucket string) (jetstream.KeyValue, error)

// open runs do with the bucket that reach gives.
func (s *settings) open(ctx context.Context, reach reaching, do func(context.Context, jetstream.KeyValue) error) error {
	s.AppID, s.FabricPort = "sidecast-config", 0 // a host that there is tells its port
	s.fromEnvironment()
	if err := s.complete(); err != nil {
		return err
	}
	f, err := s.openFabric(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	bucket := s.bucket
	if bucket == "" {
		bucket = natsconfig.Bucket(s.Namespace, s.store)
	}
	kv, err := reach(ctx, f.Conn(), bucket)
	if err == nil {
		err = do(ctx, kv)
	}
	return errors.Join(err, f.Close(ctx))
}

// existing is a bucket that there is.
func existing(ctx context.Context, conn *nats.Conn, bucket string) (jetstream.KeyValue, error) {
	kv, err := natsconfig.Find(ctx, conn, bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fault.New("config", fault.SettingNotFound, "there is no bucket %s: nothing was written to it yet, or it has another name", bucket)
	}
	return kv, err
}

func (s *settings) get() *cobra.Command {
	return &cobra.Command{
		Use:   "get [KEY...]",
		Short: "Print the value of a key, or several as KEY=VALUE",
		Long:  "Prints the value of one key as it is; of several, or of all there are when none is named, a line KEY=VALUE each.\n\nA key that does not exist is exit code 3.",
		Example: `  sidecast config get discount --store settings
  sidecast config get --store settings`,
		RunE: func(cmd *cobra.Command, keys []string) error {
			err := s.open(cmd.Context(), existing, func(ctx context.Context, kv jetstream.KeyValue) error {
				single := len(keys) == 1
				if len(keys) == 0 {
					all, err := kv.Keys(ctx)
					if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
						return fault.E("config get", fault.Unavailable, fault.BackendFailed, err)
					}
					keys = all
					slices.Sort(keys)
				}
				for _, key := range keys {
					entry, err := kv.Get(ctx, key)
					switch {
					case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrInvalidKey):
						return fault.New("config get "+key, fault.SettingNotFound, "the bucket %s does not hold it", kv.Bucket())
					case err != nil:
						return fault.E("config get "+key, fault.Unavailable, fault.BackendFailed, err)
					case single:
						fmt.Fprintln(cmd.OutOrStdout(), string(entry.Value()))
					default:
						fmt.Fprintf(cmd.OutOrStdout(), "%s=%s\n", key, entry.Value())
					}
				}
				return nil
			})
			if len(keys) == 0 && fault.ReasonOf(err) == fault.SettingNotFound { // where there is no bucket, there is nothing
				return nil
			}
			return err
		},
	}
}

func (s *settings) set() *cobra.Command {
	return &cobra.Command{
		Use:     "set KEY VALUE",
		Short:   "Write the value of a key",
		Example: `  sidecast config set discount 0.25 --store settings`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			made := func(ctx context.Context, conn *nats.Conn, bucket string) (jetstream.KeyValue, error) {
				return natsconfig.Open(ctx, conn, bucket, s.Replicas)
			}
			return s.write(cmd.Context(), "set", args[0], made, func(ctx context.Context, kv jetstream.KeyValue) error {
				_, err := kv.PutString(ctx, args[0], args[1])
				return err
			})
		},
	}
}

func (s *settings) delete() *cobra.Command {
	return &cobra.Command{
		Use:     "delete KEY",
		Short:   "Remove a key",
		Long:    "Removes a key; one that does not exist is no error.",
		Example: `  sidecast config delete discount --store settings`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := s.write(cmd.Context(), "delete", args[0], existing, func(ctx context.Context, kv jetstream.KeyValue) error { return kv.Delete(ctx, args[0]) })
			if fault.ReasonOf(err) == fault.SettingNotFound {
				return nil
			}
			return err
		},
	}
}

func (s *settings) write(ctx context.Context, what, key string, reach reaching, do func(context.Context, jetstream.KeyValue) error) error {
	op := "config " + what + " " + key
	if !natsconfig.ValidKey(key) {
		return fault.New(op, fault.FlagInvalid, "%q is no key: use letters, digits and -_=./ without a dot at an end", key)
	}
	return s.open(ctx, reach, func(ctx context.Context, kv jetstream.KeyValue) error {
		if err := do(ctx, kv); err != nil {
			return fault.E(op, fault.Unavailable, fault.BackendFailed, err)
		}
		return nil
	})
}
