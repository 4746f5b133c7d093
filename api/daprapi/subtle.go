package daprapi

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	kitcrypto "github.com/dapr/kit/crypto"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/keyring"
)

// subtleRefused says of an operation that failed no more than that: what is wrong with a ciphertext helps who tries to read it
// without the key. The log has it.
func (s *Server) subtleRefused(what string, err error) error {
	s.o.Log.Debug("a crypto operation failed", "operation", what, "error", err)
	return plain(http.StatusInternalServerError, codes.Internal, "ERR_CRYPTO", "failed to perform operation: failed to %s", what).of(err)
}

func keyRefused(name string, err error) error {
	return plain(http.StatusInternalServerError, codes.Internal, "ERR_CRYPTO_KEY", "failed to retrieve key %s: %v", name, ownWords(err)).of(err)
}

// withOf is how a request wants its key used. Those that sign have neither a nonce nor associated data.
func withOf(in interface {
	GetKeyName() string
	GetAlgorithm() string
}) keyring.With {
	with := keyring.With{Key: in.GetKeyName(), Algorithm: in.GetAlgorithm()}
	if ciphers, ok := in.(interface {
		GetNonce() []byte
		GetAssociatedData() []byte
	}); ok {
		with.Nonce, with.Associated = ciphers.GetNonce(), ciphers.GetAssociatedData()
	}
	return with
}

func (a *api) SubtleGetKeyAlpha1(ctx context.Context, in *runtimev1.SubtleGetKeyRequest) (*runtimev1.SubtleGetKeyResponse, error) {
	if err := a.s.checkCrypto(in.GetComponentName()); err != nil {
		return nil, err
	}
	format := in.GetFormat()
	if format != runtimev1.SubtleGetKeyRequest_PEM && format != runtimev1.SubtleGetKeyRequest_JSON {
		return nil, badRequest("invalid key format")
	}
	key, err := a.s.o.Blocks.Crypto.PublicKey(ctx, in.GetComponentName(), in.GetName())
	if err != nil {
		return nil, keyRefused(in.GetName(), err)
	}
	out := &runtimev1.SubtleGetKeyResponse{Name: key.Name, PublicKey: string(key.JWK)}
	if format == runtimev1.SubtleGetKeyRequest_PEM {
		der, err := x509.MarshalPKIXPublicKey(key.Key)
		if err != nil {
			return nil, keyRefused(in.GetName(), fmt.Errorf("failed to marshal public key %s as PKIX: %w", in.GetName(), err))
		}
		out.PublicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	return out, nil
}

func (a *api) SubtleEncryptAlpha1(ctx context.Context, in *runtimev1.SubtleEncryptRequest) (*runtimev1.SubtleEncryptResponse, error) {
	if err := a.s.checkCrypto(in.GetComponentName()); err != nil {
		return nil, err
	}
	sealed, tag, err := a.s.o.Blocks.Crypto.Seal(ctx, in.GetComponentName(), in.GetPlaintext(), withOf(in))
	if err != nil {
		return nil, a.s.subtleRefused("encrypt", err)
	}
	return &runtimev1.SubtleEncryptResponse{Ciphertext: sealed, Tag: tag}, nil
}

func (a *api) SubtleDecryptAlpha1(ctx context.Context, in *runtimev1.SubtleDecryptRequest) (*runtimev1.SubtleDecryptResponse, error) {
	if err := a.s.checkCrypto(in.GetComponentName()); err != nil {
		return nil, err
	}
	plain, err := a.s.o.Blocks.Crypto.Open(ctx, in.GetComponentName(), in.GetCiphertext(), in.GetTag(), withOf(in))
	if err != nil {
		return nil, a.s.subtleRefused("decrypt", err)
	}
	return &runtimev1.SubtleDecryptResponse{Plaintext: plain}, nil
}

// SubtleWrapKeyAlpha1 takes a key in any form: JWK, PEM, bytes, or bytes as Base64.
func (a *api) SubtleWrapKeyAlpha1(ctx context.Context, in *runtimev1.SubtleWrapKeyRequest) (*runtimev1.SubtleWrapKeyResponse, error) {
	if err := a.s.checkCrypto(in.GetComponentName()); err != nil {
		return nil, err
	}
	parsed, err := kitcrypto.ParseKey(in.GetPlaintextKey(), "")
	if err != nil {
		return nil, cryptoRefused(fmt.Errorf("failed to parse plaintext key: %w", err))
	}
	key, err := kitcrypto.SerializeKey(parsed)
	if err != nil {
		return nil, a.s.subtleRefused("wrap key", err)
	}
	wrapped, tag, err := a.s.o.Blocks.Crypto.Wrap(ctx, in.GetComponentName(), key, withOf(in))
	if err != nil {
		return nil, a.s.subtleRefused("wrap key", err)
	}
	return &runtimev1.SubtleWrapKeyResponse{WrappedKey: wrapped, Tag: tag}, nil
}

func (a *api) SubtleUnwrapKeyAlpha1(ctx context.Context, in *runtimev1.SubtleUnwrapKeyRequest) (*runtimev1.SubtleUnwrapKeyResponse, error) {
	if err := a.s.checkCrypto(in.GetComponentName()); err != nil {
		return nil, err
	}
	key, err := a.s.o.Blocks.Crypto.Unwrap(ctx, in.GetComponentName(), in.GetWrappedKey(), in.GetTag(), withOf(in))
	if err != nil {
		return nil, a.s.subtleRefused("unwrap key", err)
	}
	return &runtimev1.SubtleUnwrapKeyResponse{PlaintextKey: key}, nil
}

func (a *api) SubtleSignAlpha1(ctx context.Context, in *runtimev1.SubtleSignRequest) (*runtimev1.SubtleSignResponse, error) {
	if err := a.s.checkCrypto(in.GetComponentName()); err != nil {
		return nil, err
	}
	signature, err := a.s.o.Blocks.Crypto.Sign(ctx, in.GetComponentName(), in.GetDigest(), withOf(in))
	if err != nil {
		return nil, a.s.subtleRefused("sign", err)
	}
	return &runtimev1.SubtleSignResponse{Signature: signature}, nil
}

func (a *api) SubtleVerifyAlpha1(ctx context.Context, in *runtimev1.SubtleVerifyRequest) (*runtimev1.SubtleVerifyResponse, error) {
	if err := a.s.checkCrypto(in.GetComponentName()); err != nil {
		return nil, err
	}
	valid, err := a.s.o.Blocks.Crypto.Verify(ctx, in.GetComponentName(), in.GetDigest(), in.GetSignature(), withOf(in))
	if err != nil {
		return nil, a.s.subtleRefused("verify signature", err)
	}
	return &runtimev1.SubtleVerifyResponse{Valid: valid}, nil
}

// subtleRoutes are the same over HTTP.
func subtleRoutes(s *Server) []route {
	a := &api{s: s}
	return []route{
		subtleRoute(s, "getkey", "SubtleGetKey", a.SubtleGetKeyAlpha1),
		subtleRoute(s, "encrypt", "SubtleEncrypt", a.SubtleEncryptAlpha1),
		subtleRoute(s, "decrypt", "SubtleDecrypt", a.SubtleDecryptAlpha1),
		subtleRoute(s, "wrapkey", "SubtleWrapKey", a.SubtleWrapKeyAlpha1),
		subtleRoute(s, "unwrapkey", "SubtleUnwrapKey", a.SubtleUnwrapKeyAlpha1),
		subtleRoute(s, "sign", "SubtleSign", a.SubtleSignAlpha1),
		subtleRoute(s, "verify", "SubtleVerify", a.SubtleVerifyAlpha1),
	}
}

func subtleRoute[I any, O proto.Message, P interface {
	*I
	proto.Message
	runtimev1.SubtleCryptoRequests
}](s *Server, path, name string, call func(context.Context, P) (O, error)) route {
	return route{"POST", "v1.0-alpha1/subtlecrypto/{name}/" + path, name, func(w http.ResponseWriter, r *http.Request, p params) error {
		in := P(new(I))
		return universal(s, w, r, in, func() { in.SetComponentName(p["name"]) }, call, protojson.MarshalOptions{})
	}}
}
