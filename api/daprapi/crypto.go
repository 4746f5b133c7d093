package daprapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/api/bodies"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
)

// cryptoFirst is how long the first message of a stream may take, as with daprd.
const cryptoFirst = 5 * time.Second

// cryptoChunk is the most data of a message that is sent.
const cryptoChunk = 64 << 10

func cryptoRefused(err error) error {
	return plain(http.StatusInternalServerError, codes.Internal, "ERR_CRYPTO", "failed to perform operation: %v", err).of(err)
}

func badRequest(format string, args ...any) error {
	return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_BAD_REQUEST", "invalid request: "+format, args...)
}

// checkCrypto validates the component's name.
func (s *Server) checkCrypto(name string) error {
	found, any := s.component(components.CryptoBlock, name)
	switch {
	case !any:
		return plain(http.StatusInternalServerError, codes.Internal, "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", "crypto providers not configured")
	case name == "":
		return badRequest("missing component name")
	case !found:
		return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_CRYPTO_PROVIDER_NOT_FOUND", "crypto provider %s not found", name)
	}
	return nil
}

func (s *Server) encrypt(w http.ResponseWriter, r *http.Request, p params) error {
	if err := s.checkCrypto(p["name"]); err != nil {
		return err
	}
	for _, name := range []string{"dapr-key-name", "dapr-key-wrap-algorithm"} {
		if r.Header.Get(name) == "" {
			return badRequest("missing header '%s'", name)
		}
	}
	return s.crypt(w, r, func(ctx context.Context, from io.Reader) (io.ReadCloser, error) {
		return s.o.Blocks.Crypto.Encrypt(ctx, blocks.Encryption{
			Component: p["name"], KeyName: r.Header.Get("dapr-key-name"), Algorithm: r.Header.Get("dapr-key-wrap-algorithm"),
			Cipher: r.Header.Get("dapr-data-encryption-cipher"), DecryptionKeyName: r.Header.Get("dapr-decryption-key-name"),
			OmitKeyName: slices.Contains([]string{"y", "yes", "true", "t", "on", "1"}, strings.ToLower(r.Header.Get("dapr-omit-decryption-key-name"))),
		}, from)
	})
}

func (s *Server) decrypt(w http.ResponseWriter, r *http.Request, p params) error {
	if err := s.checkCrypto(p["name"]); err != nil {
		return err
	}
	return s.crypt(w, r, func(ctx context.Context, from io.Reader) (io.ReadCloser, error) {
		return s.o.Blocks.Crypto.Decrypt(ctx, p["name"], r.Header.Get("dapr-key-name"), from)
	})
}

// crypt answers with a whole document, so that one with a mistake is an error and not a part of it.
func (s *Server) crypt(w http.ResponseWriter, r *http.Request, begin func(context.Context, io.Reader) (io.ReadCloser, error)) error {
	body, err := s.whole(r)
	if err != nil {
		return unreadable(err)
	}
	out, err := begin(r.Context(), bytes.NewReader(body))
	if err != nil {
		return cryptoRefused(err)
	}
	defer out.Close()
	var all bytes.Buffer
	all.Grow(len(body))
	if _, err := all.ReadFrom(out); err != nil {
		return plain(http.StatusInternalServerError, codes.Internal, "ERROR", "%v", err).of(err)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	answerData(w, http.StatusOK, all.Bytes())
	return nil
}

func (a *api) EncryptAlpha1(stream runtimev1.Dapr_EncryptAlpha1Server) error {
	first := &runtimev1.EncryptRequest{}
	if err := firstOf(stream, first); err != nil {
		return err
	}
	options := first.GetOptions()
	switch {
	case options == nil:
		return badRequest("first message does not contain the required options")
	case options.GetKeyName() == "":
		return badRequest("missing property 'keyName' in the options message")
	case options.GetKeyWrapAlgorithm() == "":
		return badRequest("missing property 'keyWrapAlgorithm' in the options message")
	}
	if err := a.s.checkCrypto(options.GetComponentName()); err != nil {
		return err
	}
	share := a.s.o.Bodies.Open()
	defer share.Close()
	from := &payloads{stream: stream, share: share, message: first}
	out, err := a.s.o.Blocks.Crypto.Encrypt(stream.Context(), blocks.Encryption{
		Component: options.GetComponentName(), KeyName: options.GetKeyName(), Algorithm: options.GetKeyWrapAlgorithm(),
		Cipher: options.GetDataEncryptionCipher(), DecryptionKeyName: options.GetDecryptionKeyName(), OmitKeyName: options.GetOmitDecryptionKeyName(),
	}, from)
	return pour(stream, &runtimev1.EncryptResponse{}, out, err)
}

func (a *api) DecryptAlpha1(stream runtimev1.Dapr_DecryptAlpha1Server) error {
	first := &runtimev1.DecryptRequest{}
	if err := firstOf(stream, first); err != nil {
		return err
	}
	options := first.GetOptions()
	if options == nil {
		return badRequest("first message does not contain the required options")
	}
	if err := a.s.checkCrypto(options.GetComponentName()); err != nil {
		return err
	}
	share := a.s.o.Bodies.Open()
	defer share.Close()
	from := &payloads{stream: stream, share: share, message: first}
	out, err := a.s.o.Blocks.Crypto.Decrypt(stream.Context(), options.GetComponentName(), options.GetKeyName(), from)
	return pour(stream, &runtimev1.DecryptResponse{}, out, err)
}

// firstOf receives the first message of a stream, or fails when it does not come soon.
func firstOf(stream grpc.ServerStream, into any) error {
	ctx, cancel := context.WithTimeout(stream.Context(), cryptoFirst)
	defer cancel()
	came := make(chan error, 1)
	go func() { came <- stream.RecvMsg(into) }() // ends with the stream
	select {
	case <-ctx.Done():
		return badRequest("error waiting for first message: %v", ctx.Err())
	case err := <-came:
		if err != nil {
			return cryptoRefused(fmt.Errorf("error receiving the first message: %w", err))
		}
	}
	return nil
}

// payloads reads the data of a stream, whose messages are numbered. It holds one of them at a time.
type payloads struct {
	stream  grpc.ServerStream
	share   *bodies.Share
	message runtimev1.CryptoRequests // the first one has come already
	begun   bool
	next    uint64
	rest    []byte
}

func (p *payloads) Read(into []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.begun {
			p.message.Reset()
			switch err := p.stream.RecvMsg(p.message); {
			case errors.Is(err, io.EOF):
				return 0, io.EOF
			case err != nil:
				return 0, fmt.Errorf("error receiving message: %w", err)
			case p.message.HasOptions():
				return 0, errors.New("options found in non-leading message")
			}
		}
		p.begun = true
		payload := p.message.GetPayload()
		if payload == nil {
			continue
		}
		if payload.GetSeq() != p.next {
			return 0, fmt.Errorf("invalid sequence number received: %d (expected: %d)", payload.GetSeq(), p.next)
		}
		p.next++
		if err := p.share.Next(p.stream.Context(), "read the data", len(payload.GetData())); err != nil {
			return 0, err
		}
		p.rest = payload.GetData()
	}
	n := copy(into, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// pour sends a document as numbered messages.
func pour(stream grpc.ServerStream, message runtimev1.CryptoResponses, from io.ReadCloser, err error) error {
	if err != nil {
		return cryptoRefused(err)
	}
	defer from.Close()
	for seq := uint64(0); ; {
		chunk := make([]byte, cryptoChunk)
		n, err := io.ReadFull(from, chunk)
		if n > 0 {
			message.SetPayload(&commonv1.StreamPayload{Data: chunk[:n], Seq: seq})
			seq++
			if err := stream.SendMsg(message); err != nil {
				return cryptoRefused(fmt.Errorf("error sending message: %w", err))
			}
		}
		switch {
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return cryptoRefused(err)
		}
	}
}
