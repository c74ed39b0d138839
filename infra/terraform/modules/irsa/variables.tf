variable "name" {
  description = "Prefix of the roles: the name of the deployment."
  type        = string
  default     = "broker"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must have 3 to 24 characters of a-z 0-9 -, begin with a letter and not end with a hyphen."
  }
}

variable "policies" {
  description = "Policy documents of the two roles: the output policies of modules/data."
  type        = map(string)

  validation {
    condition     = length(setsubtract(["api", "worker"], keys(var.policies))) == 0
    error_message = "policies needs api and worker: the output policies of modules/data."
  }
}

variable "oidc_provider_arn" {
  description = "ARN of the cluster's OIDC provider, for IRSA; null without."
  type        = string
  default     = null

  validation {
    condition     = var.oidc_provider_arn == null || can(regex(":oidc-provider/", var.oidc_provider_arn))
    error_message = "oidc_provider_arn must be the ARN of an OIDC provider."
  }
}

variable "pod_identity_cluster" {
  description = "Name of the EKS cluster, for Pod Identity; null without."
  type        = string
  default     = null

  validation {
    condition     = var.pod_identity_cluster != null || var.oidc_provider_arn != null
    error_message = "Give oidc_provider_arn (IRSA), pod_identity_cluster, or both: else the roles cannot be assumed."
  }
}

variable "namespace" {
  description = "Namespace of the pods."
  type        = string
  default     = "sandbox-broker"
}

variable "service_accounts" {
  description = "Service accounts of the pods, as the chart names them."
  type        = object({ api = string, worker = string })
  default     = { api = "broker-api", worker = "broker-worker" }
}

variable "keda_operator_role_arn" {
  description = "Role of the KEDA operator, which measures the queue with the worker's role (identityOwner workload); its own policy must allow sts:AssumeRole on that role. null if KEDA has permissions of its own."
  type        = string
  default     = null
}

variable "role_path" {
  description = "IAM path of the roles."
  type        = string
  default     = "/"
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of both roles; null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of every resource, in addition to Name."
  type        = map(string)
  default     = {}
}
