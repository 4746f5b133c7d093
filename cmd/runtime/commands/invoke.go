package commands

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func invokeCommand(o *options) *cobra.Command {
	var body input
	var headers []string
	request := &sidecastv1.InvokeRequest{}
	cmd := &cobra.Command{
		Use:   "invoke APP METHOD",
		Short: "Call a method of an app",
		Long: `Calls a method of an app through a sidecar of this machine and prints the answer's body as it came,
so that it can be piped. For an app that is reached over HTTP the method is the path below its port,
with a query if you like.

Several sidecars may run here: the call goes through any of them, as its app, unless --app-id
chooses one.

An answer with an HTTP status of 400 or more is printed like any other and ends the command with
exit code 1.`,
		Example: examples(
			`sidecast invoke pricing price --data '{"sku":"A-1","quantity":3}'`,
			`sidecast invoke web 'healthz?full=1' --verb GET`,
			`cat order.json | sidecast invoke intake orders --content-type application/json | jq .total`,
			`sidecast invoke pricing price -d '{}' --header tenant=acme -o json`,
		),
		Args:              exactArgs("APP", "METHOD"),
		ValidArgsFunction: o.completeFabricApps,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx, cancel := o.within(cmd.Context(), 0)
			defer cancel()
			request.AppId = args[0]
			request.Method, request.HttpQuery, _ = strings.Cut(args[1], "?")
			if request.Metadata, err = pairs(cmd, "header", headers); err != nil {
				return err
			}
			if request.Data, err = body.read(ctx, cmd); err != nil {
				return err
			}
			if request.ContentType == "" && json.Valid(request.Data) {
				request.ContentType = "application/json"
			}
			request.HttpVerb = strings.ToUpper(request.HttpVerb)
			conn, err := o.connect(ctx, anySidecar)
			if err != nil {
				return err
			}
			defer conn.Close()
			answer, err := sidecastv1.NewInvocationClient(conn).Invoke(ctx, request)
			if err != nil {
				return err
			}
			return o.printAnswer(cmd, args[0], answer)
		},
	}
	body.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&request.ContentType, "content-type", "", "media type of the body (default application/json for JSON, else application/octet-stream)")
	flags.StringArrayVarP(&headers, "header", "H", nil, "header field `name=value` to pass on; may be repeated")
	flags.StringVarP(&request.HttpVerb, "verb", "X", "", "HTTP verb for an app reached over HTTP (default POST)")
	flags.BoolVar(&request.Idempotent, "idempotent", false, "doing it twice is the same as once: policies may retry it after it was sent")
	_ = cmd.RegisterFlagCompletionFunc("verb", cobra.FixedCompletions([]string{"GET", "POST", "PUT", "PATCH", "DELETE"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// printAnswer prints what an app answered.
func (o *options) printAnswer(cmd *cobra.Command, app string, answer *sidecastv1.InvokeResponse) error {
	var err error
	if o.json() {
		data := contentOf(answer.Data)
		err = printJSON(cmd.OutOrStdout(), struct {
			Status      int32             `json:"status,omitempty"`
			ContentType string            `json:"contentType,omitempty"`
			Metadata    map[string]string `json:"metadata,omitempty"`
			Data        json.RawMessage   `json:"data,omitempty"`
			DataBase64  []byte            `json:"dataBase64,omitempty"`
		}{answer.HttpStatus, answer.ContentType, answer.Metadata, data.JSON, data.Base64})
	} else {
		err = printRaw(cmd, answer.Data)
	}
	if err == nil && answer.HttpStatus >= 400 {
		return &exitError{ExitFailed, fault.E("invoke "+app, fault.Internal, fault.AppFailed,
			fmt.Errorf("the app answered with HTTP status %d", answer.HttpStatus))}
	}
	return err
}
