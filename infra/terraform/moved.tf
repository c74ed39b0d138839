# A state of before the module was split into parts keeps every resource: nothing is destroyed by the upgrade.

moved {
  from = aws_appautoscaling_policy.api_cpu
  to   = module.ecs.aws_appautoscaling_policy.api_cpu
}

moved {
  from = aws_appautoscaling_policy.backlog
  to   = module.ecs.aws_appautoscaling_policy.backlog
}

moved {
  from = aws_appautoscaling_policy.oldest_age
  to   = module.ecs.aws_appautoscaling_policy.oldest_age
}

moved {
  from = aws_appautoscaling_target.this
  to   = module.ecs.aws_appautoscaling_target.this
}

moved {
  from = aws_cloudwatch_dashboard.this
  to   = module.observability.aws_cloudwatch_dashboard.this
}

moved {
  from = aws_cloudwatch_log_group.this
  to   = module.ecs.aws_cloudwatch_log_group.this
}

moved {
  from = aws_cloudwatch_log_group.waf
  to   = module.ecs.aws_cloudwatch_log_group.waf
}

moved {
  from = aws_cloudwatch_log_metric_filter.this
  to   = module.observability.aws_cloudwatch_log_metric_filter.this
}

moved {
  from = aws_cloudwatch_metric_alarm.dead_letters["requests"]
  to   = module.observability.aws_cloudwatch_metric_alarm.high["dead-letters-requests"]
}

moved {
  from = aws_cloudwatch_metric_alarm.dead_letters["maintenance"]
  to   = module.observability.aws_cloudwatch_metric_alarm.high["dead-letters-maintenance"]
}

moved {
  from = aws_cloudwatch_metric_alarm.errors
  to   = module.observability.aws_cloudwatch_metric_alarm.math["errors"]
}

moved {
  from = aws_cloudwatch_metric_alarm.high
  to   = module.observability.aws_cloudwatch_metric_alarm.high
}

moved {
  from = aws_cloudwatch_metric_alarm.low
  to   = module.observability.aws_cloudwatch_metric_alarm.low
}

moved {
  from = aws_cloudwatch_metric_alarm.scale_on_age
  to   = module.ecs.aws_cloudwatch_metric_alarm.scale_on_age
}

moved {
  from = aws_cloudwatch_query_definition.this
  to   = module.observability.aws_cloudwatch_query_definition.this
}

moved {
  from = aws_dynamodb_table.this
  to   = module.data.aws_dynamodb_table.this
}

moved {
  from = aws_ecs_cluster.this
  to   = module.ecs.aws_ecs_cluster.this[0]
}

moved {
  from = aws_ecs_service.api
  to   = module.ecs.aws_ecs_service.api
}

moved {
  from = aws_ecs_service.worker
  to   = module.ecs.aws_ecs_service.worker
}

moved {
  from = aws_ecs_task_definition.this
  to   = module.ecs.aws_ecs_task_definition.this
}

moved {
  from = aws_iam_policy.operator
  to   = module.data.aws_iam_policy.operator
}

moved {
  from = aws_iam_role.execution
  to   = module.ecs.aws_iam_role.execution
}

moved {
  from = aws_iam_role.scheduler
  to   = module.data.aws_iam_role.scheduler
}

moved {
  from = aws_iam_role.task
  to   = module.ecs.aws_iam_role.task
}

moved {
  from = aws_iam_role_policy.execution
  to   = module.ecs.aws_iam_role_policy.execution
}

moved {
  from = aws_iam_role_policy.scheduler
  to   = module.data.aws_iam_role_policy.scheduler
}

moved {
  from = aws_iam_role_policy.task
  to   = module.ecs.aws_iam_role_policy.task
}

moved {
  from = aws_lb.this
  to   = module.ecs.aws_lb.this[0]
}

moved {
  from = aws_lb_listener.http
  to   = module.ecs.aws_lb_listener.http[0]
}

moved {
  from = aws_lb_listener.https
  to   = module.ecs.aws_lb_listener.https[0]
}

moved {
  from = aws_lb_listener_rule.no_metrics
  to   = module.ecs.aws_lb_listener_rule.no_metrics[0]
}

moved {
  from = aws_lb_target_group.api
  to   = module.ecs.aws_lb_target_group.api
}

moved {
  from = aws_scheduler_schedule.this
  to   = module.data.aws_scheduler_schedule.this
}

moved {
  from = aws_scheduler_schedule_group.this
  to   = module.data.aws_scheduler_schedule_group.this
}

moved {
  from = aws_secretsmanager_secret.this
  to   = module.ecs.aws_secretsmanager_secret.this
}

moved {
  from = aws_security_group.endpoints
  to   = module.ecs.aws_security_group.endpoints
}

moved {
  from = aws_security_group.load_balancer
  to   = module.ecs.aws_security_group.load_balancer[0]
}

moved {
  from = aws_security_group.task
  to   = module.ecs.aws_security_group.task
}

moved {
  from = aws_sqs_queue.dead_letters
  to   = module.data.aws_sqs_queue.dead_letters
}

moved {
  from = aws_sqs_queue.this
  to   = module.data.aws_sqs_queue.this
}

moved {
  from = aws_sqs_queue_policy.tls_only
  to   = module.data.aws_sqs_queue_policy.tls_only
}

moved {
  from = aws_sqs_queue_redrive_allow_policy.this
  to   = module.data.aws_sqs_queue_redrive_allow_policy.this
}

moved {
  from = aws_vpc_endpoint.gateway
  to   = module.ecs.aws_vpc_endpoint.gateway
}

moved {
  from = aws_vpc_endpoint.interface
  to   = module.ecs.aws_vpc_endpoint.interface
}

moved {
  from = aws_vpc_security_group_egress_rule.https
  to   = module.ecs.aws_vpc_security_group_egress_rule.https
}

moved {
  from = aws_vpc_security_group_egress_rule.to_api
  to   = module.ecs.aws_vpc_security_group_egress_rule.to_api[0]
}

moved {
  from = aws_vpc_security_group_egress_rule.to_endpoints
  to   = module.ecs.aws_vpc_security_group_egress_rule.to_endpoints
}

moved {
  from = aws_vpc_security_group_egress_rule.to_gateways
  to   = module.ecs.aws_vpc_security_group_egress_rule.to_gateways
}

moved {
  from = aws_vpc_security_group_ingress_rule.endpoints
  to   = module.ecs.aws_vpc_security_group_ingress_rule.endpoints
}

moved {
  from = aws_vpc_security_group_ingress_rule.from_load_balancer
  to   = module.ecs.aws_vpc_security_group_ingress_rule.from_load_balancer[0]
}

moved {
  from = aws_vpc_security_group_ingress_rule.http
  to   = module.ecs.aws_vpc_security_group_ingress_rule.http
}

moved {
  from = aws_vpc_security_group_ingress_rule.https
  to   = module.ecs.aws_vpc_security_group_ingress_rule.https
}

moved {
  from = aws_wafv2_ip_set.trusted
  to   = module.ecs.aws_wafv2_ip_set.trusted
}

moved {
  from = aws_wafv2_web_acl.this
  to   = module.ecs.aws_wafv2_web_acl.this
}

moved {
  from = aws_wafv2_web_acl_association.this
  to   = module.ecs.aws_wafv2_web_acl_association.this
}

moved {
  from = aws_wafv2_web_acl_logging_configuration.this
  to   = module.ecs.aws_wafv2_web_acl_logging_configuration.this
}

moved {
  from = aws_cloudwatch_metric_alarm.high["pool-empty"]
  to   = module.observability.aws_cloudwatch_metric_alarm.math["pool-empty"]
}
