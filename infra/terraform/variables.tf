# What must be given: name, image, network, certificate. Everything else has a default that suits a pool of some thousand sandboxes.

variable "name" {
  description = "What every name begins with: table, queues (BROKER_PREFIX), services, roles, alarms. One deployment per name, account and region."
  type        = string
  default     = "broker"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must have 3 to 24 characters of a-z 0-9 -, begin with a letter and not end with a hyphen."
  }
}

variable "image" {
  description = "The image with broker, broker-api and broker-worker. Name it by digest (repository@sha256:...), so that what runs cannot change under a tag."
  type        = string

  validation {
    condition     = can(regex("^[^\\s:@]+(:[0-9]+)?(/[^\\s:@]+)*(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must carry a tag other than latest, or a digest."
  }
}

variable "cpu_architecture" {
  description = "What the image was built for: ARM64 (cheaper) or X86_64."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.cpu_architecture)
    error_message = "cpu_architecture must be ARM64 or X86_64."
  }
}

variable "settings" {
  description = "More BROKER_* settings for API and worker, by name. Secrets do not belong here, and what this module sets itself cannot be set."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "BROKER_")])
    error_message = "settings are BROKER_* names only."
  }

  validation {
    condition     = alltrue([for name in keys(var.settings) : !can(regex("TOKEN", name))])
    error_message = "Tokens are secrets: put them into the secrets that this module makes (outputs secret_arns)."
  }

  validation {
    condition = length(setintersection(keys(var.settings), [
      "BROKER_TABLE", "BROKER_PREFIX", "BROKER_LISTEN", "BROKER_ADMIN_LISTEN", "BROKER_METRICS_LISTEN", "BROKER_LAME_DUCK_S", "BROKER_DRAIN_S",
      "BROKER_VISIBILITY_S", "BROKER_LOCAL", "BROKER_LOG_FORMAT", "BROKER_SCHEDULER", "BROKER_THREADS", "BROKER_STATE_SHARDS", "BROKER_REPLY_QUEUE_KMS_KEY",
      "BROKER_PROVIDER_RATE", "BROKER_OTLP_ENDPOINT",
    ])) == 0
    error_message = "BROKER_TABLE, _PREFIX, _LISTEN, _ADMIN_LISTEN, _METRICS_LISTEN, _LAME_DUCK_S, _DRAIN_S, _VISIBILITY_S, _LOCAL, _LOG_FORMAT, _SCHEDULER, _THREADS, _STATE_SHARDS, _REPLY_QUEUE_KMS_KEY, _PROVIDER_RATE and _OTLP_ENDPOINT follow from other variables of this module."
  }
}

variable "service_secrets" {
  description = "More secrets for the tasks, by service and BROKER_* setting: the ARN of a Secrets Manager secret, e.g. the provider's token for the worker."
  type = object({
    api    = optional(map(string), {})
    worker = optional(map(string), {})
  })
  default = {}

  validation {
    condition = alltrue([
      for name, arn in merge(var.service_secrets.api, var.service_secrets.worker) :
      startswith(name, "BROKER_") && can(regex("^arn:[^:]+:secretsmanager:", arn))
    ])
    error_message = "service_secrets are BROKER_* names, each with the ARN of a secret."
  }
}

variable "drain_s" {
  description = "Seconds that a process may take to finish its work after SIGTERM (BROKER_DRAIN_S), after the 15 in which an API goes on serving until the load balancer knows. Fargate kills 120 s after SIGTERM at the latest; 15 s of them are kept for the end itself."
  type        = number
  default     = 60

  validation {
    condition     = var.drain_s >= 1 && var.drain_s <= 90 && floor(var.drain_s) == var.drain_s
    error_message = "drain_s must be a whole number from 1 to 90."
  }
}

variable "visibility_s" {
  description = "Seconds for which a received message stays hidden from other workers: the queues' visibility timeout and BROKER_VISIBILITY_S."
  type        = number
  default     = 30

  validation {
    condition     = var.visibility_s >= 2 && var.visibility_s <= 43200 && floor(var.visibility_s) == var.visibility_s
    error_message = "visibility_s must be a whole number from 2 to 43200."
  }
}

variable "kms_key_arn" {
  description = "Customer-managed KMS key for table, queues, secrets and logs; null leaves it to keys that AWS owns (encrypted as well, without the cost per call). Its policy must admit CloudWatch Logs and Scheduler."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, not of an alias."
  }
}

variable "secret_recovery_days" {
  description = "Days for which a deleted secret can be brought back; 0 deletes at once."
  type        = number
  default     = 7

  validation {
    condition     = var.secret_recovery_days == 0 || (var.secret_recovery_days >= 7 && var.secret_recovery_days <= 30)
    error_message = "secret_recovery_days must be 0 or 7 to 30."
  }
}

variable "role_path" {
  description = "IAM path of the roles."
  type        = string
  default     = "/"

  validation {
    condition     = can(regex("^/([A-Za-z0-9_.+=,@-]+/)*$", var.role_path))
    error_message = "role_path must begin and end with a slash."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of every role; null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of every resource, in addition to Name."
  type        = map(string)
  default     = {}
}
