// Package shop is what the three apps of the example say to each other.
package shop

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
)

// Topics of the example.
const (
	Placed  = "orders.placed"
	Decided = "orders.shipped" // Decision.Shipped says whether it was
)

// Order is one line of the file of orders.
type Order struct {
	// Run tells the orders of one run of the example from those of the next.
	Run      int    `json:"run"`
	ID       string `json:"id"`
	Customer string `json:"customer"`
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

// Price is what pricing answers.
type Price struct {
	Accepted   bool   `json:"accepted"`
	Reason     string `json:"reason,omitempty"`
	TotalCents int    `json:"total_cents"`
}

// Decision is what fulfilment made of an order.
type Decision struct {
	Order   Order  `json:"order"`
	Shipped bool   `json:"shipped"`
	Reason  string `json:"reason,omitempty"`
	// Token is the fencing token of the lock under which it was decided.
	Token uint64 `json:"token"`
}

// Stock is the stock of one SKU.
type Stock struct {
	SKU    string `json:"sku"`
	Before int    `json:"before"`
	Left   int    `json:"left"`
	// Token is the highest fencing token that has changed it.
	Token uint64 `json:"token"`
}

// StockRequest asks fulfilment for all stock of a run.
type StockRequest struct {
	Run int `json:"run"`
}

// ReadTable reads a CSV file with a header line and calls row with each line's columns by name.
func ReadTable(path string, row func(columns map[string]string) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := csv.NewReader(file)
	header, err := lines.Read()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for {
		fields, err := lines.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		columns := make(map[string]string, len(header))
		for i, name := range header {
			columns[name] = fields[i]
		}
		if err := row(columns); err != nil {
			line, _ := lines.FieldPos(0)
			return fmt.Errorf("%s:%d: %w", path, line, err)
		}
	}
}

// ReadNumbers reads a CSV file of SKUs, each with a number in the given column.
func ReadNumbers(path, column string) (map[string]int, error) {
	numbers := map[string]int{}
	err := ReadTable(path, func(columns map[string]string) error {
		n, err := strconv.Atoi(columns[column])
		numbers[columns["sku"]] = n
		return err
	})
	return numbers, err
}
