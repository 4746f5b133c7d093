package telemetry

import (
	"strconv"
	"time"
)

// HTTPCalled records a request to the app. Sent and received are the lengths of the bodies, -1 where they were not told. A request
// without an answer has the status 500.
func (d *Dapr) HTTPCalled(method, path string, status int, sent, received int64, took time.Duration) {
	if d == nil {
		return
	}
	method, path, code := d.method(method), d.paths.label(path), strconv.Itoa(status)
	d.add(&httpClientSent, float64(max(sent, 0)), method, path, "")
	d.add(&httpClientCompleted, 1, method, path, code)
	d.add(&httpClientLatency, inMillis(took), method, path, code)
	if received >= 0 {
		d.add(&httpClientReceived, float64(received))
	}
}

// BulkDelivered records events that the app got in one delivery. Dapr has a label for what became of them, and no word for it.
func (d *Dapr) BulkDelivered(component, topic string, took time.Duration) {
	if d == nil {
		return
	}
	d.add(&bulkIngressCount, 1, component, d.namespace, "", topic)
	d.add(&bulkIngressTime, inMillis(took), component, d.namespace, "", topic)
}

// HTTPProbed records a health check of an app that speaks HTTP.
func (d *Dapr) HTTPProbed(status int, took time.Duration) {
	if d == nil {
		return
	}
	code := strconv.Itoa(status)
	d.add(&httpProbes, 1, code)
	d.add(&httpProbeLatency, inMillis(took), code)
}

// RPCCalled records an RPC to the app; sizes of streams are -1, and not recorded.
func (d *Dapr) RPCCalled(method, status string, sent, received int, took time.Duration) {
	if d == nil {
		return
	}
	d.add(&grpcClientCompleted, 1, method, status)
	d.add(&grpcClientLatency, inMillis(took), method, status)
	if sent >= 0 {
		d.add(&grpcClientSent, float64(sent), method)
		d.add(&grpcClientReceived, float64(received), method)
	}
}

// RPCProbed records a health check of an app that speaks gRPC.
func (d *Dapr) RPCProbed(status string, took time.Duration) {
	if d == nil {
		return
	}
	d.add(&grpcProbes, 1, status)
	d.add(&grpcProbeLatency, inMillis(took), status)
}
