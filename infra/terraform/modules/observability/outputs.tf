output "dashboard_name" {
  description = "The CloudWatch dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "alarm_names" {
  description = "Names of all alarms that notify."
  value = sort(concat(
    [for alarm in aws_cloudwatch_metric_alarm.high : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.low : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.math : alarm.alarm_name],
    [for alarm in aws_cloudwatch_composite_alarm.burn : alarm.alarm_name],
  ))
}
