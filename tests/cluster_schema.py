"""What KubeRay's manifests may contain, as a JSON schema.

Written after the fields of KubeRay's API v1 (1.6), and of Kubernetes' pods as far as `cluster/` uses them. Closed: a
field that is not named here is an error, as it is for `kubectl apply`. The generated CRDs are ten thousand lines each.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
TEXTS: Schema = {"type": "array", "items": TEXT}
WORDS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
NAME: Schema = {"type": "string", "pattern": r"^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$"}


def closed(*required: str, **properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def some(item: Schema) -> Schema:
    """A list of at least one."""
    return {"type": "array", "items": item, "minItems": 1}


def one_of(*values: str) -> Schema:
    """One of these words."""
    return {"enum": list(values)}


QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}
RESOURCES = closed("limits", "requests", limits=QUANTITIES, requests=QUANTITIES)
KEY = closed("name", "key", name=NAME, key=TEXT, optional=FLAG)
FROM_SECRET = closed("secretKeyRef", secretKeyRef=KEY)
CONTAINER_SECURITY = closed(
    "allowPrivilegeEscalation",
    "capabilities",
    allowPrivilegeEscalation={"const": False},
    readOnlyRootFilesystem=FLAG,
    capabilities=closed("drop", drop={"const": ["ALL"]}),
)
POD_SECURITY = closed(
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
    runAsNonRoot={"const": True},
    runAsUser={"type": "integer", "minimum": 1},
    runAsGroup={"type": "integer", "minimum": 1},
    fsGroup={"type": "integer", "minimum": 1},
    seccompProfile=closed("type", type=one_of("RuntimeDefault", "Localhost")),
)
CONTAINER = closed(
    "name",
    "image",
    "resources",
    "securityContext",
    name=NAME,
    image=TEXT,
    command=TEXTS,
    args=TEXTS,
    env=some(closed("name", name=TEXT, value=TEXT, valueFrom=FROM_SECRET)),
    envFrom=some(closed("secretRef", secretRef=closed("name", name=NAME, optional=FLAG))),
    ports=some(closed("containerPort", "name", containerPort=PORT, name=NAME, protocol=one_of("TCP", "UDP"))),
    resources=RESOURCES,
    securityContext=CONTAINER_SECURITY,
    volumeMounts=some(closed("name", "mountPath", name=NAME, mountPath=TEXT, readOnly=FLAG, subPath=TEXT)),
    readinessProbe=closed("tcpSocket", tcpSocket=closed("port", port=NAME)),
)
VOLUME = closed(
    "name",
    name=NAME,
    emptyDir=closed(medium=one_of("Memory"), sizeLimit=QUANTITY),
    configMap=closed("name", name=NAME),
    secret=closed("secretName", secretName=NAME, defaultMode={"const": 0o440}),
    persistentVolumeClaim=closed("claimName", claimName=NAME, readOnly=FLAG),
) | {"minProperties": 2, "maxProperties": 2}
POD = closed(
    "metadata",
    "spec",
    metadata=closed("labels", labels=WORDS, annotations=WORDS),
    spec=closed(
        "containers",
        "securityContext",
        containers=some(CONTAINER),
        volumes=some(VOLUME),
        securityContext=POD_SECURITY,
        tolerations=some(closed("key", "operator", key=TEXT, operator=one_of("Exists", "Equal"), effect=TEXT)),
        automountServiceAccountToken=FLAG,
        serviceAccountName=NAME,
        nodeSelector=WORDS,
        restartPolicy=one_of("Never", "OnFailure", "Always"),
    ),
)
HEAD = closed(
    "rayStartParams",
    "template",
    rayStartParams=WORDS,
    template=POD,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
    enableIngress=FLAG,
    labels=WORDS,
    resources=WORDS,
)
WORKERS = closed(
    "groupName",
    "template",
    groupName=NAME,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    numOfHosts=COUNT,
    rayStartParams=WORDS,
    template=POD,
    labels=WORDS,
    resources=WORDS,
    suspend=FLAG,
)
CLUSTER = closed(
    "rayVersion",
    "headGroupSpec",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=closed("mode", mode=one_of("disabled", "token"), secretName=NAME, enableK8sTokenAuth=FLAG),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(
        version=one_of("v1", "v2"),
        idleTimeoutSeconds=COUNT,
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        image=TEXT,
        imagePullPolicy=TEXT,
        resources=RESOURCES,
        securityContext=CONTAINER_SECURITY,
    ),
    gcsFaultToleranceOptions=closed(
        "redisAddress",
        redisAddress={"type": "string", "pattern": r"^(rediss?://)?[a-z0-9.-]+:\d+$"},
        redisPassword=closed("valueFrom", valueFrom=FROM_SECRET),  # no `value`: a password is never in the file
        redisUsername=closed("valueFrom", valueFrom=FROM_SECRET),
        externalStorageNamespace=TEXT,
    ),
    headServiceAnnotations=WORDS,
    headGroupSpec=HEAD,
    workerGroupSpecs=some(WORKERS),
    suspend=FLAG,
    upgradeStrategy=closed(type=one_of("Recreate", "None")),
)
JOB = closed(
    "entrypoint",
    "rayClusterSpec",
    entrypoint=TEXT,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    metadata=WORDS,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    rayClusterSpec=CLUSTER,
    suspend=FLAG,
)
SERVICE = closed(
    "serveConfigV2",
    "rayClusterConfig",
    serveConfigV2=TEXT,
    rayClusterConfig=CLUSTER,
    upgradeStrategy=closed(type=one_of("NewCluster", "NewClusterWithIncrementalUpgrade", "None")),
    rayClusterDeletionDelaySeconds=COUNT,
)
KUBERAY = {
    kind: closed(
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=closed("name", name=NAME, labels=WORDS, annotations=WORDS),
        spec=spec,
    )
    for kind, spec in (("RayCluster", CLUSTER), ("RayJob", JOB), ("RayService", SERVICE))
}
