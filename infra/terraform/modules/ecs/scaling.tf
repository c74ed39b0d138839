# How many tasks there are. The workers' rule is one, here, in KEDA (infra/kubernetes) and in `broker up --workers A..B`:
#
#   desired = ceil((visible + in flight) / backlog_per_task), held between min_tasks and max_tasks
#
# Target tracking gets there by holding the backlog per running task at its target. CloudWatch counts once a minute, so
# this serves sustained load; the first seconds of a burst are served by the tasks that are there, and by what each takes at once.
# Known rushes are given as `scheduled_scaling`.
#
# No FILL: CloudWatch publishes these metrics late, so a filled expression would always have a made-up newest point, and
# target tracking, which wants three breaching points in a row, would never act (infra/check/scaling.py plays this through).

locals {
  backlog_expression = "(visible + inflight) / IF(running > 1, running, 1)"

  # Id, namespace, name, statistic and dimensions of what the expression uses.
  backlog_metrics = {
    visible  = { namespace = "AWS/SQS", name = "ApproximateNumberOfMessagesVisible", stat = "Maximum", dimensions = { QueueName = var.requests_queue_name } }
    inflight = { namespace = "AWS/SQS", name = "ApproximateNumberOfMessagesNotVisible", stat = "Maximum", dimensions = { QueueName = var.requests_queue_name } }
    running  = { namespace = "ECS/ContainerInsights", name = "RunningTaskCount", stat = "Average", dimensions = { ClusterName = local.cluster.name, ServiceName = local.service_name["worker"] } }
  }

  scaled = var.autoscaling ? {
    api    = { min = local.desired.api, max = var.paused ? 0 : var.api.max_tasks }
    worker = { min = local.desired.worker, max = var.paused ? 0 : var.worker.max_tasks }
  } : {}
}

resource "aws_appautoscaling_target" "this" {
  for_each = local.scaled

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${local.cluster.name}/${local.service_name[each.key]}"
  min_capacity       = each.value.min
  max_capacity       = each.value.max
  tags               = local.tags

  depends_on = [aws_ecs_service.api, aws_ecs_service.worker]
}

resource "aws_appautoscaling_policy" "backlog" {
  count = var.autoscaling ? 1 : 0

  name               = "${var.name}-backlog-per-task"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this["worker"].service_namespace
  scalable_dimension = aws_appautoscaling_target.this["worker"].scalable_dimension
  resource_id        = aws_appautoscaling_target.this["worker"].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.worker.backlog_per_task
    scale_out_cooldown = var.worker.scale_out_cooldown_s
    # A worker that is told to stop finishes what it has, or gives it back (stopTimeout > BROKER_DRAIN_S).
    scale_in_cooldown = var.worker.scale_in_cooldown_s

    customized_metric_specification {
      metrics {
        id          = "backlog_per_task"
        label       = "Backlog per running worker"
        expression  = local.backlog_expression
        return_data = true
      }

      dynamic "metrics" {
        for_each = local.backlog_metrics
        content {
          id          = metrics.key
          return_data = false

          metric_stat {
            stat = metrics.value.stat

            metric {
              namespace   = metrics.value.namespace
              metric_name = metrics.value.name

              dynamic "dimensions" {
                for_each = metrics.value.dimensions
                content {
                  name  = dimensions.key
                  value = dimensions.value
                }
              }
            }
          }
        }
      }
    }
  }
}

# The age of the oldest request is what clients feel. Few slow messages make no backlog, and yet requests wait.
resource "aws_appautoscaling_policy" "oldest_age" {
  count = var.autoscaling ? 1 : 0

  name               = "${var.name}-oldest-request"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this["worker"].service_namespace
  scalable_dimension = aws_appautoscaling_target.this["worker"].scalable_dimension
  resource_id        = aws_appautoscaling_target.this["worker"].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    cooldown                = var.worker.scale_out_cooldown_s
    metric_aggregation_type = "Maximum"

    # Above the alarm's threshold by 0 to 25 s, by 25 to 55 s, by more.
    step_adjustment {
      metric_interval_lower_bound = 0
      metric_interval_upper_bound = 25
      scaling_adjustment          = 2
    }

    step_adjustment {
      metric_interval_lower_bound = 25
      metric_interval_upper_bound = 55
      scaling_adjustment          = 3
    }

    step_adjustment {
      metric_interval_lower_bound = 55
      scaling_adjustment          = 4
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "scale_on_age" {
  count = var.autoscaling ? 1 : 0

  alarm_name          = "${var.name}-scale-on-oldest-request"
  alarm_description   = "Scales the workers out, no action: the oldest request is older than ${var.worker.oldest_age_s} s"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = var.requests_queue_name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = var.worker.oldest_age_s
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.oldest_age[0].arn]
  tags                = local.tags
}

resource "aws_appautoscaling_policy" "api_cpu" {
  count = var.autoscaling ? 1 : 0

  name               = "${var.name}-api-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this["api"].service_namespace
  scalable_dimension = aws_appautoscaling_target.this["api"].scalable_dimension
  resource_id        = aws_appautoscaling_target.this["api"].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.api.cpu_percent
    scale_out_cooldown = 30
    scale_in_cooldown  = 300

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

# Rushes that are known beforehand, e.g. a class at nine: the bounds change at a time, not when a queue has grown.
resource "aws_appautoscaling_scheduled_action" "this" {
  for_each = var.autoscaling && !var.paused ? var.scheduled_scaling : {}

  name               = "${var.name}-${each.key}"
  service_namespace  = aws_appautoscaling_target.this[each.value.service].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[each.value.service].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[each.value.service].resource_id
  schedule           = each.value.schedule
  timezone           = each.value.timezone

  scalable_target_action {
    min_capacity = each.value.min_tasks
    max_capacity = coalesce(each.value.max_tasks, local.scaled[each.value.service].max)
  }
}
