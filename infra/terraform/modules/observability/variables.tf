variable "name" {
  description = "What every name begins with: table, queues (BROKER_PREFIX), services, roles, alarms. One deployment per name, account and region."
  type        = string
  default     = "broker"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must have 3 to 24 characters of a-z 0-9 -, begin with a letter and not end with a hyphen."
  }
}

variable "table_name" {
  description = "The DynamoDB table."
  type        = string
}

variable "queue_names" {
  description = "Names of the four queues: the output queue_names of modules/data."
  type        = map(string)

  validation {
    condition     = length(setsubtract(["requests", "maintenance", "requests-dlq", "maintenance-dlq"], keys(var.queue_names))) == 0
    error_message = "queue_names needs requests, maintenance, requests-dlq and maintenance-dlq: the output of modules/data."
  }
}

variable "census_minutes" {
  description = "Minutes between two censuses, as the job is scheduled: the output census_minutes of modules/data. Alarms on what it tells look no more often."
  type        = number
  default     = 1

  validation {
    condition     = var.census_minutes >= 1 && var.census_minutes <= 600
    error_message = "A census that comes less often than every 600 minutes cannot be watched: alarms of CloudWatch do not look back that far."
  }
}

variable "ecs" {
  description = "Cluster, services and least number of tasks, by service; null where the broker does not run on ECS (no alarms on tasks then)."
  type = object({
    cluster_name  = string
    service_names = map(string)
    desired_tasks = map(number)
  })
  default = null
}

variable "load_balancer" {
  description = "arn_suffix of load balancer and target group; null for none (no alarms on answers then). shared says that others use the load balancer, too: then only what reached the target group counts, and 5xx of the load balancer itself do not."
  type        = object({ arn_suffix = string, target_group_arn_suffix = string, shared = optional(bool, false) })
  default     = null
}

variable "log_groups" {
  description = "CloudWatch log groups with the JSON lines of api and worker; null where logs go elsewhere (no metrics from logs, no alarms on them, no saved queries)."
  type        = map(string)
  default     = null

  validation {
    condition     = var.log_groups == null ? true : length(setsubtract(["api", "worker"], keys(var.log_groups))) == 0
    error_message = "log_groups needs api and worker."
  }
}

variable "collector_namespace" {
  description = "CloudWatch namespace of the processes' own metrics with the dimensions prefix and service (output collector_namespace of modules/ecs); null for none."
  type        = string
  default     = null
}

variable "worker_scaling" {
  description = "The workers' scaling rule, for the dashboard: output worker_scaling of modules/ecs; null for none."
  type        = any
  default     = null
}

variable "paused" {
  description = "Whether the services are scaled to zero on purpose: alarms are silent then."
  type        = bool
  default     = false
}

variable "save_queries" {
  description = "Whether the questions of the runbook are saved in CloudWatch Logs Insights."
  type        = bool
  default     = true
}

variable "alarms" {
  description = "Where alarms go (SNS topics; none makes alarms that only show) and their thresholds. actions are for what wakes a person, ticket_actions (null: the same) for what can wait until the morning. Ages and latencies are seconds. census_minutes is the interval of the census: up to 100,000 sandboxes that of the job (1), and as long again for each further 100,000; never less than the job's. slo_availability_percent and slo_fast_percent are the objectives for answers without 5xx and for answers within latency_p99_s, over 30 days; with log groups latencies are those of allocate calls, without the ones that may wait in a line."
  type = object({
    actions                  = optional(list(string), [])
    ok_actions               = optional(list(string), [])
    ticket_actions           = optional(list(string))
    oldest_request_s         = optional(number, 30)
    oldest_maintenance_s     = optional(number, 1800)
    pool_available_min       = optional(number, 50)
    census_minutes           = optional(number, 1)
    pending_deletion_max     = optional(number, 2000)
    error_percent            = optional(number, 1)
    error_min_requests       = optional(number, 10)
    waits_run_out_percent    = optional(number, 1)
    latency_p99_s            = optional(number, 2)
    cpu_percent              = optional(number, 85)
    memory_percent           = optional(number, 85)
    slo_availability_percent = optional(number, 99.9)
    slo_fast_percent         = optional(number, 99)
    slo_min_requests         = optional(number, 100)
  })
  default = {}

  validation {
    condition     = alltrue([for arn in concat(var.alarms.actions, var.alarms.ok_actions, coalesce(var.alarms.ticket_actions, [])) : startswith(arn, "arn:")])
    error_message = "alarms.actions, ok_actions and ticket_actions are ARNs."
  }

  validation {
    condition     = var.alarms.error_percent > 0 && var.alarms.error_percent <= 100
    error_message = "alarms.error_percent must be above 0 and at most 100."
  }

  validation {
    condition     = var.alarms.census_minutes >= 1 && var.alarms.census_minutes <= 600
    error_message = "alarms.census_minutes must be from 1 to 600."
  }

  validation {
    condition     = min(var.alarms.slo_availability_percent, var.alarms.slo_fast_percent) >= 90 && max(var.alarms.slo_availability_percent, var.alarms.slo_fast_percent) < 100
    error_message = "An objective is from 90 to below 100 percent."
  }
}

variable "tags" {
  description = "Tags of every resource, in addition to Name."
  type        = map(string)
  default     = {}
}
