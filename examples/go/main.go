// Asks a prediction server for some entities, one call for all of them.
//
//	go run . 127.0.0.1:50051 00004 00010
//
// ESPALIER_TOKEN is sent as the caller's token when it is set.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "espalier.dev/examples/go/predictionv1"
)

// All calls only read, so one that met nobody may be made again.
const serviceConfig = `{
  "methodConfig": [{
    "name": [{"service": "espalier.prediction.v1.PredictionService"}],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.2s",
      "maxBackoff": "2s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: predict ADDRESS ENTITY...")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, told(err))
		os.Exit(1)
	}
}

func run(address string, entities []string) error {
	// For a server with TLS: credentials.NewTLS(&tls.Config{}).
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if token := os.Getenv("ESPALIER_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	service := pb.NewPredictionServiceClient(connection)
	answer, err := service.BatchPredict(ctx, &pb.BatchPredictRequest{EntityIds: entities})
	if err != nil {
		return err
	}
	for _, found := range answer.Predictions {
		if found.Status == pb.EntityStatus_ENTITY_STATUS_UNKNOWN_ENTITY {
			fmt.Printf("%s unknown\n", found.EntityId)
			continue
		}
		fmt.Printf("%s %g score %.4f model %s version %s\n", found.EntityId, found.Prediction,
			found.Score, found.Model.Name, found.Model.Version)
	}
	return nil
}

// The server's reason, by which to tell errors apart, before its words.
func told(err error) string {
	failed := status.Convert(err)
	for _, detail := range failed.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason + ": " + failed.Message()
		}
	}
	return failed.Code().String() + ": " + failed.Message()
}
