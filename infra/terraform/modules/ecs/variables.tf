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

variable "environment" {
  description = "Settings that follow from table and queues: the output environment of modules/data."
  type        = map(string)

  validation {
    condition     = length(setsubtract(["BROKER_TABLE", "BROKER_PREFIX", "AWS_REGION"], keys(var.environment))) == 0
    error_message = "environment needs at least BROKER_TABLE, BROKER_PREFIX and AWS_REGION: the output environment of modules/data."
  }
}

variable "policies" {
  description = "Policy documents of the tasks' roles: the output policies of modules/data."
  type        = map(string)

  validation {
    condition     = length(setsubtract(["api", "worker"], keys(var.policies))) == 0
    error_message = "policies needs api and worker: the output policies of modules/data."
  }
}

variable "requests_queue_name" {
  description = "Name of the queue that the workers are scaled on: queue_names[\"requests\"] of modules/data."
  type        = string
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

  validation {
    condition     = length(setintersection(keys(var.settings), keys(var.environment))) == 0
    error_message = "environment has some of these settings already, as intervals that job_intervals_s of modules/data names: set them there."
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

variable "kms_key_arn" {
  description = "Customer-managed KMS key for table, queues, secrets and logs; null leaves it to keys that AWS owns (encrypted as well, without the cost per call). Its policy must admit CloudWatch Logs and Scheduler."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, not of an alias."
  }
}

variable "deletion_protection" {
  description = "Whether table and load balancer refuse to be deleted."
  type        = bool
  default     = true
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

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a number of days that CloudWatch Logs knows."
  }
}

variable "tags" {
  description = "Tags for everything, beside Name."
  type        = map(string)
  default     = {}
}

variable "cluster" {
  description = "An existing ECS cluster with Container Insights switched on; null makes one. In a shared cluster the services are called NAME-api and NAME-worker."
  type        = object({ name = string, arn = string })
  default     = null
}

variable "load_balancer" {
  description = "An existing application load balancer: its HTTPS listener, security group, arn_suffix, our host names and two free rule priorities from `priority` on. null makes one. Its idle timeout must be 60 s and its security group must reach the tasks on port 8080, and with `admin` on 8081. admin.listener_arn is another HTTPS listener of it that only operators reach: our host names lead to the admin routes, docs and metrics there (port 8081 of the tasks); null: nobody reaches them."
  type = object({
    listener_arn      = string
    security_group_id = string
    arn_suffix        = string
    hosts             = list(string)
    priority          = optional(number, 100)

    admin = optional(object({ listener_arn = string }))
  })
  default = null

  validation {
    condition     = var.load_balancer == null ? true : length(var.load_balancer.hosts) > 0
    error_message = "load_balancer.hosts must name at least one host: the listener serves others as well."
  }
}

variable "security_group_ids" {
  description = "Existing security groups of the tasks; null makes them with the rules of this module."
  type        = object({ api = string, worker = string })
  default     = null
}

variable "log_group_names" {
  description = "Existing log groups; null makes /NAME/api and /NAME/worker."
  type        = object({ api = string, worker = string })
  default     = null
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

variable "collector" {
  description = "A collector container beside each task (AWS Distro for OpenTelemetry, by digest): writes the processes' metrics to CloudWatch in the embedded metric format with the dimension prefix, and traces to X-Ray. metrics are regular expressions of the names to keep, because each is charged. null for none."
  type = object({
    image      = string
    interval_s = optional(number, 60)
    traces     = optional(bool, true)
    metrics = optional(list(string), [
      "broker_ready", "broker_pool_.+", "broker_queue_.+", "broker_dead_letters", "broker_dead_letter_oldest_age_seconds",
      "broker_provider_breaker_state", "broker_clock_skew_seconds", "broker_pending_replies",
    ])
  })
  default = null

  validation {
    condition     = var.collector == null ? true : can(regex("@sha256:[0-9a-f]{64}$", var.collector.image))
    error_message = "collector.image must be given by digest."
  }
}

variable "otlp_endpoint" {
  description = "Base URL of a collector elsewhere that takes traces as OTLP over HTTP (BROKER_OTLP_ENDPOINT), e.g. http://collector.internal:4318; the tasks' security groups let them reach its port. null for none, or for the collector beside the task."
  type        = string
  default     = null

  validation {
    condition     = var.otlp_endpoint == null || can(regex("^https?://[^\\s/?#@]+(/[^\\s?]*)?$", var.otlp_endpoint))
    error_message = "otlp_endpoint must be an http or https URL, without a password and a query."
  }
}

variable "otlp_cidrs" {
  description = "Address ranges of otlp_endpoint."
  type        = list(string)
  default     = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]

  validation {
    condition     = length(var.otlp_cidrs) > 0 && alltrue([for cidr in var.otlp_cidrs : can(cidrhost(cidr, 0))])
    error_message = "otlp_cidrs must be address ranges, at least one."
  }
}
