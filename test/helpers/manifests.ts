/** What these files use of the schemas of Kubernetes and KEDA; the rest of those is not ours to repeat. Unknown words fail. */
const LABELS = { type: 'object', additionalProperties: { type: 'string' } }
const META = {
  type: 'object',
  required: ['name'],
  additionalProperties: false,
  properties: { name: { type: 'string', pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$' }, labels: LABELS },
}
const PROBE = {
  type: 'object',
  required: ['httpGet'],
  additionalProperties: false,
  properties: {
    httpGet: {
      type: 'object',
      required: ['port', 'path'],
      additionalProperties: false,
      properties: { path: { type: 'string', pattern: '^/' }, port: { enum: ['metrics'] } },
    },
    periodSeconds: { type: 'integer', minimum: 1 },
    timeoutSeconds: { type: 'integer', minimum: 1 },
    failureThreshold: { type: 'integer', minimum: 1 },
  },
}
const QUANTITIES = { type: 'object', additionalProperties: { type: 'string', pattern: '^\\d+(m|Mi|Gi)?$' } }
const CONTAINER = {
  type: 'object',
  required: ['name', 'image', 'args', 'env', 'ports', 'livenessProbe', 'resources', 'securityContext'],
  additionalProperties: false,
  properties: {
    name: { type: 'string' },
    image: { type: 'string' },
    args: { type: 'array', items: { type: 'string' } },
    env: { type: 'array', items: { type: 'object', required: ['name', 'valueFrom'] } },
    ports: {
      type: 'array',
      items: {
        type: 'object',
        additionalProperties: false,
        properties: { name: { type: 'string', maxLength: 15 }, containerPort: { type: 'integer', maximum: 65_535 } },
      },
    },
    startupProbe: PROBE,
    livenessProbe: PROBE,
    readinessProbe: PROBE,
    resources: {
      type: 'object',
      required: ['requests', 'limits'],
      additionalProperties: false,
      properties: { requests: QUANTITIES, limits: QUANTITIES },
    },
    securityContext: { type: 'object' },
    volumeMounts: { type: 'array', items: { type: 'object', required: ['name', 'mountPath'] } },
  },
}
const POD = {
  type: 'object',
  required: ['terminationGracePeriodSeconds', 'containers'],
  additionalProperties: false,
  properties: {
    terminationGracePeriodSeconds: { type: 'integer', minimum: 1 },
    automountServiceAccountToken: { enum: [false] },
    securityContext: { type: 'object' },
    topologySpreadConstraints: { type: 'array', items: { type: 'object' } },
    containers: { type: 'array', minItems: 1, items: CONTAINER },
    volumes: { type: 'array', items: { type: 'object', required: ['name'] } },
  },
}
export const DEPLOYMENT = {
  type: 'object',
  required: ['apiVersion', 'kind', 'metadata', 'spec'],
  additionalProperties: false,
  properties: {
    apiVersion: { enum: ['apps/v1'] },
    kind: { enum: ['Deployment'] },
    metadata: META,
    spec: {
      type: 'object',
      required: ['selector', 'template'],
      additionalProperties: false,
      properties: {
        replicas: { type: 'integer', minimum: 0 },
        selector: { type: 'object', required: ['matchLabels'], properties: { matchLabels: LABELS } },
        strategy: { type: 'object' },
        template: {
          type: 'object',
          required: ['metadata', 'spec'],
          additionalProperties: false,
          properties: {
            metadata: { type: 'object', properties: { labels: LABELS, annotations: LABELS } },
            spec: POD,
          },
        },
      },
    },
  },
}
export const SCALED_OBJECT = {
  type: 'object',
  required: ['apiVersion', 'kind', 'metadata', 'spec'],
  additionalProperties: false,
  properties: {
    apiVersion: { enum: ['keda.sh/v1alpha1'] },
    kind: { enum: ['ScaledObject'] },
    metadata: META,
    spec: {
      type: 'object',
      required: ['scaleTargetRef', 'triggers'],
      additionalProperties: false,
      properties: {
        scaleTargetRef: { type: 'object', required: ['name'] },
        minReplicaCount: { type: 'integer', minimum: 0 },
        maxReplicaCount: { type: 'integer', minimum: 1 },
        pollingInterval: { type: 'integer', minimum: 1 },
        cooldownPeriod: { type: 'integer', minimum: 0 },
        fallback: {
          type: 'object',
          required: ['failureThreshold', 'replicas'],
          additionalProperties: false,
          properties: {
            failureThreshold: { type: 'integer', minimum: 0 },
            replicas: { type: 'integer', minimum: 0 },
            behavior: { enum: ['static', 'currentReplicas', 'currentReplicasIfHigher', 'currentReplicasIfLower'] },
          },
        },
        advanced: { type: 'object' },
        triggers: {
          type: 'array',
          items: {
            type: 'object',
            required: ['type', 'metadata'],
            additionalProperties: false,
            properties: {
              type: { enum: ['prometheus'] },
              name: { type: 'string' },
              metricType: { enum: ['AverageValue'] },
              metadata: {
                type: 'object',
                required: ['serverAddress', 'query', 'threshold'],
                additionalProperties: { type: 'string' },
              },
            },
          },
        },
      },
    },
  },
}
