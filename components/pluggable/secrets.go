package pluggable

import (
	"context"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

var (
	_ components.SecretStore = (*vault)(nil)
	_ components.Ailing      = (*vault)(nil)
)

// vault is a secret store of a program.
type vault struct{ *link }

func openVault(ctx context.Context, host components.Host, at *place, s components.Settings) (components.SecretStore, error) {
	l, err := openLink(ctx, at.socket, at.typeOf(components.SecretBlock), proto.SecretStore_ServiceDesc.ServiceName, host, func(ctx context.Context, conn *grpc.ClientConn) error {
		client := proto.NewSecretStoreClient(conn)
		_, err := client.Init(ctx, &proto.SecretStoreInitRequest{Metadata: &proto.MetadataRequest{Properties: s.Values}})
		if err == nil {
			_, err = client.Features(ctx, &proto.FeaturesRequest{}) // daprd asks; a program may count on it
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &vault{l}, nil
}

// Secret implements components.SecretStore.
func (v *vault) Secret(ctx context.Context, name string, metadata map[string]string) (map[string]string, error) {
	return call(ctx, v.link, "secret "+name, func(ctx context.Context, conn *grpc.ClientConn) (map[string]string, error) {
		got, err := proto.NewSecretStoreClient(conn).Get(ctx, &proto.GetSecretRequest{Key: name, Metadata: metadata})
		if status.Code(err) == codes.NotFound {
			return nil, fault.New("secret "+name, fault.SecretNotFound, "the plug-in at %s: %s", v.socket, status.Convert(err).Message())
		}
		return got.GetData(), err
	})
}

// Secrets implements components.SecretStore.
func (v *vault) Secrets(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error) {
	return call(ctx, v.link, "all secrets", func(ctx context.Context, conn *grpc.ClientConn) (map[string]map[string]string, error) {
		got, err := proto.NewSecretStoreClient(conn).BulkGet(ctx, &proto.BulkGetSecretRequest{Metadata: metadata})
		all := make(map[string]map[string]string, len(got.GetData()))
		for name, secret := range got.GetData() {
			all[name] = secret.GetSecrets()
		}
		return all, err
	})
}
