// Asks a prediction server for some entities, one call for all of them.
//
//   node build/predict.js 127.0.0.1:50051 00004 00010
//
// ESPALIER_TOKEN is sent as the caller's token when it is set.

import { credentials, loadPackageDefinition, Metadata, type ServiceError } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";
import type { BatchPredictResponse__Output } from "./generated/espalier/prediction/v1/BatchPredictResponse.js";
import type { ProtoGrpcType } from "./generated/prediction.js";

const CONTRACT = "espalier/prediction/v1/prediction.proto";

// All calls only read, so one that met nobody may be made again.
const SERVICE_CONFIG = {
  loadBalancingConfig: [],
  methodConfig: [
    {
      name: [{ service: "espalier.prediction.v1.PredictionService" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

async function predict(address: string, entityIds: string[]): Promise<BatchPredictResponse__Output> {
  const protos = fileURLToPath(new URL("../../../protos", import.meta.url));
  const definition = loadSync(CONTRACT, { includeDirs: [protos], enums: String, defaults: true });
  const { espalier } = loadPackageDefinition(definition) as unknown as ProtoGrpcType;
  // For a server with TLS: credentials.createSsl().
  const client = new espalier.prediction.v1.PredictionService(address, credentials.createInsecure(), {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  });
  const metadata = new Metadata();
  const token = process.env["ESPALIER_TOKEN"];
  if (token) metadata.set("authorization", `Bearer ${token}`);
  const deadline = Date.now() + 10_000;
  try {
    return await new Promise((resolve, reject) => {
      client.BatchPredict({ entityIds }, metadata, { deadline }, (error, answer) =>
        error || !answer ? reject(error) : resolve(answer),
      );
    });
  } finally {
    client.close();
  }
}

const [address, ...entityIds] = process.argv.slice(2);
if (!address || entityIds.length === 0) {
  console.error("usage: predict ADDRESS ENTITY...");
  process.exit(2);
}
try {
  for (const found of (await predict(address, entityIds)).predictions) {
    console.log(
      found.status === "ENTITY_STATUS_UNKNOWN_ENTITY"
        ? `${found.entityId} unknown`
        : `${found.entityId} ${found.prediction} score ${found.score.toFixed(4)} ` +
            `model ${found.model?.name} version ${found.model?.version}`,
    );
  }
} catch (error) {
  console.error((error as ServiceError).message);
  process.exitCode = 1;
}
