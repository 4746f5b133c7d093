package gosdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dapr/go-sdk/service/common"
	daprgrpc "github.com/dapr/go-sdk/service/grpc"
	daprhttp "github.com/dapr/go-sdk/service/http"
)

// The variables by which the test's own binary is started as an app of the soak, so that it can be killed.
const (
	soakProtocol = "SOAK_PROTOCOL" // http or grpc
	soakPort     = "SOAK_PORT"
	soakLedger   = "SOAK_LEDGER" // the address to which the app tells what it has handled
)

// soakApp is a process of its own: an app of the SDK that echoes, and tells the ledger of each event before it says so to
// its sidecar.
func soakApp(protocol string) error {
	address := "127.0.0.1:" + os.Getenv(soakPort)
	var app common.Service = daprhttp.NewService(address)
	if protocol == "grpc" {
		var err error
		if app, err = daprgrpc.NewService(address); err != nil {
			return err
		}
	}
	told := func(topic string, data []byte) error {
		answer, err := http.Post(os.Getenv(soakLedger)+"?topic="+url.QueryEscape(topic), "text/plain", strings.NewReader(string(data)))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	}
	errs := []error{app.AddServiceInvocationHandler("/echo", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
		return &common.Content{Data: in.Data, ContentType: in.ContentType}, nil
	})}
	for _, topic := range []string{"told", "bulked"} {
		errs = append(errs, app.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: topic + "-" + protocol, Route: "/" + topic},
			func(_ context.Context, e *common.TopicEvent) (bool, error) {
				err := told(e.Topic, []byte(e.Data.(string)))
				return err != nil, err
			}))
	}
	if protocol == "http" { // the declared subscription comes here, and the SDK knows nothing of it
		errs = append(errs, app.AddServiceInvocationHandler("/declared", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
			var event struct{ Data, Topic string }
			if err := json.Unmarshal(in.Data, &event); err != nil {
				return nil, err
			}
			return nil, told(event.Topic, []byte(event.Data))
		}))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- app.Start() }()
	select {
	case err := <-ended:
		return err
	case <-stop:
	}
	bounded := time.AfterFunc(2*time.Second, func() { os.Exit(0) })
	defer bounded.Stop()
	return app.GracefulStop()
}

// beSoakApp ends the process as an app's, if it was started as one.
func beSoakApp() {
	protocol := os.Getenv(soakProtocol)
	if protocol == "" {
		return
	}
	if err := soakApp(protocol); err != nil && !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "the app ends:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
